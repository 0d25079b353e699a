"""`/v1/messages`: the API that Anthropic's clients speak, over the same asks."""
