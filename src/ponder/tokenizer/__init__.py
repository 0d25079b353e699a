"""Text ↔ ids. Byte-level BPE, trained here or loaded from the Hugging Face layout."""

from ponder.tokenizer.bpe import LONG_TEXT, GrowingText, StreamDecoder, Tokenizer
from ponder.tokenizer.files import TokenizerError

__all__ = ["LONG_TEXT", "GrowingText", "StreamDecoder", "Tokenizer", "TokenizerError"]
