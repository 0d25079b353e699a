"""`/v1/chat/completions`: its request (schema, read), its answers (write), its route."""
