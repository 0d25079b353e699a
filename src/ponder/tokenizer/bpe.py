"""BPE, byte-level or SentencePiece's, whose `encode` can never yield a control token.

Text and control tokens live apart: `encode` runs on a tokenizer from which every added token is removed, so text that
spells a control token comes out as ordinary tokens. Control ids enter a prompt by name only (`control_id`).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from ponder.gguf.reading import GgufFile, declared_ends, is_gguf
from ponder.tokenizer.files import (
    DEFAULT_TEMPLATE,
    TokenizerError,
    build_tokenizer,
    check_templates,
    read_folder,
    write_folder,
)
from ponder.tokenizer.gguf import read_vocabulary
from ponder.tokenizer.sentencepiece import is_sentencepiece, piece_bytes
from ponder.tokenizer.special import added_token, added_tokens, gather_special_tokens, special_name, stripping
from ponder.tokenizer.splitting import SPLIT_REGEX
from ponder.types import InvalidRequest

VOCAB_MULTIPLE = 32
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
LONG_TEXT = 4096  # characters
_RETRY_CHARACTERS = 16
# At the end of a text these may still change: the last piece may grow, and the one before it may take it in (white
# space before a line break; a combining mark, where the text is normalised; 't, under GPT-4o's splitting rule).
_UNSETTLED_PIECES = 2


class Tokenizer:
    """A vocabulary with its control tokens.

    Ids below `vocab_size` are ordinary (text) or control (every added token of the file, flagged special or not). Any
    text round-trips: `decode(encode(text)) == text` (for a loaded tokenizer: up to its own normaliser, and the space
    with which SentencePiece begins a text).
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        source: str = "<memory>",
        *,
        ends: Sequence[int] = (),
    ) -> None:
        """spec: the content of a `tokenizer.json`. config: of its `tokenizer_config.json`.
        ends: ids that end a generation, beside the config's `eos_token`.

        Raises TokenizerError naming `source` when the spec is malformed or of another kind, or when the config's
        chat templates are malformed.
        """
        self._spec = dict(spec)
        self._config = dict(config or {})
        self._control = added_tokens(self._spec, source)
        self._names = {id: name for name, id in self._control.items()}
        self._plain = _without_added_tokens(self._spec, set(self._names), source)
        pieces = is_sentencepiece(self._spec, self._plain.get_vocab().keys())
        self._spelled = piece_bytes if pieces else _byte_level_bytes
        self._vocab_size = 1 + max(max(self._plain.get_vocab().values(), default=-1), max(self._names, default=-1))
        self._bytes: dict[int, bytes] = {id: name.encode() for id, name in self._names.items()}
        self._templates = check_templates(self._config, source)
        named = self._control.get(self.special_name("eos_token") or "")
        declared = dict.fromkeys(([] if named is None else [named]) + list(ends))
        self._ends = tuple(id for id in declared if id < self._vocab_size)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        control_tokens: Sequence[str],
        *,
        config: Mapping[str, Any] | None = None,
    ) -> Tokenizer:
        """Learn merges from `texts`. The control tokens get the last ids, in the order given.

        The total is exactly `vocab_size`: where the texts do not give enough merges, `<|unused_i|>` control tokens fill
        the gap below the control tokens.

        config: what `save` writes as `tokenizer_config.json`, beside the list of the control tokens.
        Raises InvalidRequest when `vocab_size` is not a multiple of 32 or cannot hold 256 bytes and the control tokens.
        """
        least = 256 + len(control_tokens)
        if vocab_size % VOCAB_MULTIPLE or vocab_size < least:
            raise InvalidRequest(
                f"vocab_size must be a multiple of {VOCAB_MULTIPLE} and at least {least}, for 256 bytes "
                f"and {len(control_tokens)} control tokens (got {vocab_size})"
            )
        if len(set(control_tokens)) != len(control_tokens):
            raise InvalidRequest("control_tokens holds a name twice: give each name once")
        learner = tokenizers.Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(SPLIT_REGEX), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        learner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(control_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        learner.train_from_iterator(texts, trainer)
        spec = json.loads(learner.to_str())
        first = learner.get_vocab_size()
        unused = [f"<|unused_{i}|>" for i in range(vocab_size - len(control_tokens) - first)]
        special = [*unused, *control_tokens]
        spec["added_tokens"] = [added_token(first + i, name) for i, name in enumerate(special)]
        return cls(spec, {"additional_special_tokens": special, **(config or {})})

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a folder in the Hugging Face layout, a `tokenizer.json` with the files beside it, or a GGUF file. Raises
        TokenizerError, or CheckpointError for a damaged GGUF file, naming the file."""
        if is_gguf(path):
            file = GgufFile(path)
            spec, config = read_vocabulary(file)
            return cls(spec, config, str(path), ends=declared_ends(file))
        files = read_folder(Path(path))
        spec, config = gather_special_tokens(files)
        return cls(spec, config, str(files.source), ends=files.ends)

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` (which `transformers` loads) into `folder`."""
        write_folder(Path(folder), self._spec, self._config)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._vocab_size

    @property
    def control(self) -> Mapping[str, int]:
        """Control token name → id."""
        return MappingProxyType(self._control)

    @property
    def config(self) -> Mapping[str, Any]:
        """The content of `tokenizer_config.json`."""
        return MappingProxyType(self._config)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The content of `tokenizer.json`."""
        return MappingProxyType(self._spec)

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """Name → text of the Jinja templates that came with the tokenizer; the usual one is called "default"."""
        return MappingProxyType(self._templates)

    @property
    def chat_template(self) -> str | None:
        """The default one of `chat_templates`."""
        return self._templates.get(DEFAULT_TEMPLATE)

    @property
    def ends(self) -> tuple[int, ...]:
        """Every id that the tokenizer's and the model's files declare to end a generation."""
        return self._ends

    def end_ids(self, names: Iterable[str]) -> tuple[int, ...]:
        """The ids of those control tokens of `names` that the vocabulary has, then those of `ends`."""
        known = (self._control[name] for name in names if name in self._control)
        return tuple(dict.fromkeys((*known, *self._ends)))

    def special_name(self, key: str) -> str | None:
        """The text of the token that the config names `bos_token`, `eos_token` and the like; None: it names none."""
        return special_name(self._config, key)

    def control_id(self, name: str) -> int:
        """The id of a control token. Raises TokenizerError when the vocabulary has none of that name."""
        if name not in self._control:
            raise TokenizerError(f"this tokenizer has no control token {name!r}: it has {sorted(self._control)[:8]} …")
        return self._control[name]

    def is_control(self, id: int) -> bool:
        return id in self._names

    def encode(self, text: str) -> list[int]:
        """Ordinary ids only, whatever the text spells. Raises InvalidRequest for text that is not Unicode."""
        try:
            if len(text) > LONG_TEXT:
                return self.encode_batch([text])[0]  # lets other threads run meanwhile: megabytes take seconds
            return self._plain.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise _not_text(text, error) from error

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts at once, in parallel."""
        try:
            return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]
        except (UnicodeEncodeError, TypeError) as error:
            raise _not_text(texts, error) from error

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        """`encode`, and for each id the position in `text` of the character where it begins."""
        ids, begins, _ = self.encode_with_pieces(text)
        return ids, begins

    def encode_with_pieces(self, text: str) -> tuple[list[int], list[int], list[int | None]]:
        """`encode_with_offsets`, and for each id the number of the piece it is in: merges never leave a piece."""
        try:
            encoding = self._plain.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise _not_text(text, error) from error
        return encoding.ids, [begin for begin, _ in encoding.offsets], encoding.word_ids

    def split_control(self, text: str) -> Iterator[tuple[int | None, str]]:
        """Split trusted text (a template's own) at the control tokens it spells: (id, name) of one, or (None, text).

        The leftmost, longest name counts, as in the `tokenizers` library, and takes the white space that its
        `lstrip` and `rstrip` flags ask for. Never use this on what a user wrote.
        """
        at = 0
        for found in self._control_pattern.finditer(text):
            if at < found.start():
                yield None, text[at : found.start()]
            name = next(name for name in found.groups() if name is not None)
            yield self._control[name], name
            at = found.end()
        if at < len(text):
            yield None, text[at:]

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        space = {True: r"\s*", False: ""}
        strips = stripping(self._spec, self._config)
        stripped = (
            space[strips[name][0]] + f"({re.escape(name)})" + space[strips[name][1]]
            for name in sorted(self._control, key=len, reverse=True)
        )
        return re.compile("|".join(stripped) or r"(?!)")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ordinary ids, exactly; a control id is spelled by its name.

        Bytes that are not UTF-8, and ids that the vocabulary does not hold, come out as U+FFFD.
        """
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one id."""
        known = self._bytes.get(id)
        if known is None:
            token = self._plain.id_to_token(id) if 0 <= id < self._vocab_size else None
            known = REPLACEMENT if token is None else self._spelled(token)
            self._bytes[id] = known
        return known


class StreamDecoder:
    """Decodes ids one at a time. Never splits a UTF-8 character; joined, the pieces equal `decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """The characters that `id` completes; empty while a character is open."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def flush(self) -> str:
        """The text of an unfinished character (U+FFFD). Decoding starts again."""
        tail = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return tail


def settled(tokenizer: Tokenizer, text: str) -> tuple[list[int], int]:
    """The ids with which `encode` of every text that begins with `text` begins, and how many characters they spell.

    Not all such ids: where in doubt, fewer. Encoding may go on from there as if the text began there. Both hold for
    splitting rules that never look back, as those of byte-level BPE vocabularies are.
    """
    ids, begins, pieces = tokenizer.encode_with_pieces(text)
    firsts = [at for at, piece in enumerate(pieces) if at == 0 or piece != pieces[at - 1]]
    if len(firsts) <= _UNSETTLED_PIECES:
        return [], 0
    end = firsts[-_UNSETTLED_PIECES]
    return ids[:end], begins[end]


class GrowingText:
    """Encodes text that is still being written: gives each id once no further text can change it."""

    def __init__(self, tokenizer: Tokenizer, *, every: int = _RETRY_CHARACTERS) -> None:
        """every: characters to come in before ids are looked for again."""
        self._tokenizer = tokenizer
        self._every = every
        self._open = ""
        self._try_at = every

    def feed(self, text: str) -> list[int]:
        """The ids that are settled now. Joined, they begin `encode` of the texts joined."""
        self._open += text
        if len(self._open) < self._try_at:
            return []
        ids, length = settled(self._tokenizer, self._open)
        self._open = self._open[length:]
        self._try_at = len(self._open) + max(self._every, len(self._open) // 4)
        return ids


def _byte_characters() -> Iterator[tuple[str, int]]:
    """GPT-2's printable stand-in for each byte (openai/gpt-2, encoder.py, `bytes_to_unicode`)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    yield from ((chr(byte), byte) for byte in shown)
    hidden = (byte for byte in range(256) if byte not in set(shown))
    yield from ((chr(256 + i), byte) for i, byte in enumerate(hidden))


_BYTE_OF_CHARACTER = dict(_byte_characters())


def _byte_level_bytes(token: str) -> bytes:
    return bytes(_BYTE_OF_CHARACTER[character] for character in token)


def _without_added_tokens(spec: Mapping[str, Any], added_ids: set[int], source: str) -> tokenizers.Tokenizer:
    """The text half of a `tokenizer.json`: no added token in its list, its vocabulary or its merges."""
    model = spec.get("model")
    if (
        not isinstance(model, Mapping)
        or model.get("type", "BPE") != "BPE"
        or not isinstance(model.get("vocab"), Mapping)
    ):
        raise TokenizerError(f"{source}: key 'model' must be a BPE model with a 'vocab'")
    vocab = {token: id for token, id in model["vocab"].items() if id not in added_ids}
    if not is_sentencepiece(spec, vocab.keys()):
        _check_byte_level(model["vocab"], vocab, source)
    merges = model.get("merges") or []
    if len(vocab) != len(model["vocab"]):
        gone = model["vocab"].keys() - vocab.keys()
        merges = [merge for merge in merges if not gone & {*_halves(merge), "".join(_halves(merge))}]
    text_half = {**model, "vocab": vocab, "merges": merges, "unk_token": None}
    plain = {
        **spec,
        "model": text_half,
        "added_tokens": [],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    return build_tokenizer(plain, source)


def _check_byte_level(every: Mapping[str, int], vocab: Mapping[str, int], source: str) -> None:
    """every: the whole vocabulary. vocab: that of text. Raises TokenizerError."""
    foreign = next((token for token in vocab if not _BYTE_OF_CHARACTER.keys() >= set(token)), None)
    if foreign is not None:
        raise TokenizerError(
            f"{source}: key 'model.vocab' holds {foreign!r}, which is not a byte-level token; Ponder reads byte-level "
            "BPE tokenizers (Qwen, Llama 3, DeepSeek, GPT-2), and SentencePiece ones whose text is one piece with "
            "256 tokens of bytes"
        )
    byte = next((token for token in every if token in _BYTE_OF_CHARACTER and token not in vocab), None)
    if byte is not None:
        raise TokenizerError(
            f"{source}: the token {byte!r} is a byte of ordinary text, but it is declared as an added token; without "
            "it no text can be encoded: declare another one"
        )


def _halves(merge: Sequence[str] | str) -> Sequence[str]:
    """The two tokens that a merge joins; merges are written as pairs or as 'left right'."""
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _not_text(given: object, error: Exception) -> InvalidRequest:
    what = "text with a lone surrogate" if isinstance(given, str) else f"a {type(given).__name__}"
    return InvalidRequest(f"cannot encode {what} ({error}): pass well-formed Unicode strings")
