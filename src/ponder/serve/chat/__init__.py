"""`/v1/chat/completions`: its objects (wire), their conversion (convert), its route (routes)."""
