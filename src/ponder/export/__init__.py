"""A model folder as one GGUF file, for llama.cpp, Ollama and LM Studio (`docs/export.md`)."""

from ponder.export.llama_cpp import Exported, export_gguf

__all__ = ["Exported", "export_gguf"]
