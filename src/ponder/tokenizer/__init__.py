"""Text ↔ ids. Byte-level BPE, trained here or loaded from the Hugging Face layout."""

from ponder.tokenizer.bpe import LONG_TEXT, GrowingText, StreamDecoder, Tokenizer
from ponder.tokenizer.files import DEFAULT_TEMPLATE, TokenizerError

__all__ = ["DEFAULT_TEMPLATE", "LONG_TEXT", "GrowingText", "StreamDecoder", "Tokenizer", "TokenizerError"]
