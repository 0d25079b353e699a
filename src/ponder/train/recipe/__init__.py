"""What a run shall do: TOML, read strictly into frozen dataclasses, with what is left open derived."""
