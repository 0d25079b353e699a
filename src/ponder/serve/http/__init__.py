"""HTTP itself: keys, bodies, errors, event streams, the access log, and uvicorn."""
