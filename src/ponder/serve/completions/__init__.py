"""`/v1/completions`: raw continuation of text or ids, without roles and without thinking."""
