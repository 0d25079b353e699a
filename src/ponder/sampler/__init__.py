"""Where conversations meet tokens: one protocol for the local engine, endpoints and the scripted fake."""
