"""`/v1/responses`: what is asked (schema, items, context), what is answered (items, events, body), and its routes."""
