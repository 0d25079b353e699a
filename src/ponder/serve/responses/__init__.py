"""`/v1/responses` and `/v1/conversations`: objects (wire), conversion (convert, items, events), routes, and the service
that makes and keeps responses (service, turn, jobs, seal)."""
