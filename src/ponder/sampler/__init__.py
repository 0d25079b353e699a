"""Where conversations meet tokens: the local engine, OpenAI-compatible endpoints, grammars and tool choice."""
