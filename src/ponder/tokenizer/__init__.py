"""Text ↔ ids. Byte-level BPE, trained here or loaded from the Hugging Face layout."""

from ponder.tokenizer.bpe import StreamDecoder, Tokenizer
from ponder.tokenizer.files import TokenizerError

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerError"]
