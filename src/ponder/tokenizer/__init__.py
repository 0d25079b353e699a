"""Text ↔ ids. Byte-level BPE, trained here or loaded from the Hugging Face layout."""

from ponder.tokenizer.bpe import StreamDecoder, Tokenizer
from ponder.tokenizer.files import TokenizerError
from ponder.tokenizer.growing import GrowingText

__all__ = ["GrowingText", "StreamDecoder", "Tokenizer", "TokenizerError"]
