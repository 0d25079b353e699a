"""The words that reasoning-gym draws from, loaded once."""

from __future__ import annotations

import re
from functools import cache

from ponder.types import MissingExtra


def _read(name: str) -> str:
    try:
        from reasoning_gym.data import read_data_file
    except ImportError as error:
        raise MissingExtra("reasoning-gym", "verify") from error
    return read_data_file(name)


@cache
def dictionary() -> list[str]:
    """Words of three to ten letters, as `spell_backward` draws them."""
    return [word for word in _read("words3to10.txt").split() if word.isalnum() and 3 <= len(word) <= 10]


@cache
def words_of_length(length: int) -> list[str]:
    """The words of `dictionary` with that many letters."""
    return [word for word in dictionary() if len(word) == length]


@cache
def story_words() -> list[str]:
    """The words of a story in their order, some with underscores around them, as `word_sorting` draws them."""
    return re.findall(r"\b\w+\b", _read("in_the_year_2889.txt"))


@cache
def running_text() -> list[str]:
    """The words of a story in their order, as `letter_counting` cuts spans from it."""
    return [word for word in story_words() if word.isalnum()]


@cache
def story_sentences() -> list[str]:
    """The story cut at its full stops, words with anything but letters left out, as `caesar_cipher` draws them."""
    sentences = _read("in_the_year_2889.txt").split(".")
    return [" ".join(word for word in sentence.split() if word.isalpha()) for sentence in sentences]
