"""The words of controlled English: cutting a sentence into them, function words, endings, numbers, opposites."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ponder.tasks.prove.logic import MAX_DIGITS_OF_NUMBER, Binder, LogicError

_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBERS = {word: value for value, word in enumerate(_NUMBERS.split())}
BE = {"is", "are"}  # what was or will be is another statement, and time is not read
DO = {"does", "do"}
HAVE = {"has", "have"}
EVERY = {"all", "every", "each"}
NONE = {"no"}
SOME = {"some"}
PRONOUNS = {f"{kind}{end}": kind for kind in ("every", "some", "no") for end in ("one", "body", "thing")}
_UNCLEAR = "he she they him her them his their its we you i this that these those here who which"
UNCLEAR = set(_UNCLEAR.split())
_MEANT = """
    was were did had been being if then and or but nor neither either both only not never unless until because
    since although though while when where than as more less fewer most least same other others another any
    few many much several always sometimes usually often maybe perhaps probably possibly may might must can
    cannot could should would will shall almost nearly without except instead also too there whether however
    therefore so hence thus
"""
# Words with a meaning that a phrase must not swallow: a phrase is one predicate that is not taken apart.
MEANT = {*BE, *DO, *HAVE, *EVERY, *NONE, *SOME, *PRONOUNS, *UNCLEAR, *_MEANT.split()}
_PREPOSITIONS = "of with to for from by near in on at into onto over under about against towards beside"
PREPOSITIONS = set(_PREPOSITIONS.split())
OPPOSITES = {
    "shorter": "taller", "younger": "older", "smaller": "bigger", "lighter": "heavier", "slower": "faster",
    "lower": "higher", "later": "earlier", "less": "greater", "poorer": "richer", "weaker": "stronger",
    "colder": "warmer", "cheaper": "dearer", "after": "before", "below": "above", "under": "above",
    "right of": "left of",
}  # fmt: skip
SAME = {"over": "above", "larger": "bigger"}
IN_ORDER = ("left of", "right of", "ahead of", "before", "after", "above", "below", "under", "over")
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "feet": "foot",
    "teeth": "tooth", "geese": "goose", "wives": "wife", "knives": "knife", "wolves": "wolf", "leaves": "leaf",
    "lives": "life", "halves": "half", "thieves": "thief", "loaves": "loaf", "shelves": "shelf", "knaves": "knave",
    "butterflies": "butterfly",
}  # fmt: skip


def singular(word: str, known: Collection[str]) -> str:
    """The singular of a plural. known: the words of the text, one of which it may be."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    endings = [
        (word[:-1],),
        (word[:-2],) if word.endswith("es") else (),
        (f"{word[:-3]}y",) if word.endswith("ies") else (),
    ]
    candidates = [each for ending in endings for each in ending]
    for each in candidates:
        if each in known:
            return each
    if word.endswith("ies"):
        return candidates[-1]
    return candidates[1] if re.search(r"(?:ss|sh|ch|x|zz|o)es$", word) else candidates[0]


def verb_stem(word: str) -> str:
    """likes, like: like; carries: carry; watches: watch."""
    if not word.endswith("s") or word.endswith(("ss", "us", "is")) or len(word) < 4:
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if re.search(r"(?:ss|sh|ch|x|zz|o)es$", word) else word[:-1]


def comparatives(adjective: str) -> list[str]:
    """The comparatives that an adjective may have, the likeliest first: big, bigger."""
    if adjective.endswith("e"):
        return [f"{adjective}r"]
    if adjective.endswith("y"):
        return [f"{adjective[:-1]}ier"]
    doubled = f"{adjective}{adjective[-1]}er"
    return [doubled, f"{adjective}er"] if re.search(r"[^aeiou][aeiou][bdgmnpt]$", adjective) else [f"{adjective}er"]


def measured(comparative: str) -> tuple[str, bool]:
    """The measure that a comparative is about, and whether it says that there is more of it."""
    comparative = SAME.get(comparative, comparative)
    return OPPOSITES.get(comparative, comparative), comparative not in OPPOSITES


# Sentences as words ---------------------------------------------------------------------------------------------------

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|,")
MAX_WORDS = 120  # of a sentence


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, in lower case, and where."""

    text: str
    low: str
    at: int


Words = Sequence[Word]


def words_in(sentence: str, at: int) -> list[Word]:
    """The words and commas of a sentence that begins at `at`. Raises LogicError for other signs."""
    words, place = [], 0
    for match in WORD.finditer(sentence):
        _check_between(sentence[place : match.start()], at + place)
        words += _uncontracted(Word(match[0], match[0].lower(), at + match.start()))
        place = match.end()
    _check_between(sentence[place:].rstrip(" .!?"), at + place)
    if len(words) > MAX_WORDS:
        raise LogicError(f"the sentence has {len(words)} words, and at most {MAX_WORDS} are read: split it", at)
    return words


def _uncontracted(word: Word) -> list[Word]:
    """isn't: is not."""
    verb, contracted = re.subn(r"n['’]t$", "", word.low)
    if not contracted:
        return [word]
    if verb not in BE | DO | HAVE:
        raise LogicError(f"{word.text!r} does not fit here: say it with 'is not', 'does not' or 'has not'", word.at)
    return [Word(verb, verb, word.at), Word("not", "not", word.at)]


def _check_between(text: str, at: int) -> None:
    if text.strip():
        raise LogicError(f"{text.strip():.20} is not a word: leave it out, or write a formula", at)


def names_in(words: Words) -> list[str] | None:
    """The names of `Ann, Bo and Cy`; None where it is something else."""
    groups: list[list[Word]] = [[]]
    for word in words:
        if word.low in (",", "and", "or"):
            groups.append([])
        else:
            groups[-1].append(word)
    groups = [group for group in groups if group]
    if not groups or not all(word.text[0].isupper() for group in groups for word in group):
        return None
    return [joined_name(group) for group in groups]


def joined_name(words: Words) -> str:
    return "_".join(re.sub(r"['’-]", "_", word.text) for word in words)


def trimmed(words: Words) -> Words:
    """Without commas at the ends."""
    begin, end = 0, len(words)
    while begin < end and words[begin].low == ",":
        begin += 1
    while end > begin and words[end - 1].low == ",":
        end -= 1
    return words[begin:end]


def comma_parts(words: Words) -> list[Words]:
    parts: list[list[Word]] = [[]]
    for word in words:
        if word.low == ",":
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def text_of(words: Words) -> str:
    return " ".join(word.text for word in words)[:80]


def is_verb(words: Words, at: int) -> bool:
    """Whether the word at `at` is a verb that the grammar knows."""
    return at < len(words) and words[at].low in BE | HAVE | DO


def symbol_name(text: str) -> str:
    """A word as a name of the logic."""
    name = re.sub(r"['’-]", "_", text)
    return name if not name[0].isdigit() else f"n{name}"


def place_of_words(lows: list[str], wanted: tuple[str, ...]) -> int | None:
    size = len(wanted)
    return next((i for i in range(len(lows) - size + 1) if tuple(lows[i : i + size]) == wanted), None)


def number_word(word: Word) -> int | None:
    if word.low in NUMBERS:
        return NUMBERS[word.low]
    if not word.low.isascii() or not word.low.isdigit():
        return None
    if len(word.low) > MAX_DIGITS_OF_NUMBER:
        raise LogicError(f"a number has {len(word.low)} digits: give at most {MAX_DIGITS_OF_NUMBER}", word.at)
    return int(word.low)


def counting_words(lows: list[str], words: Words) -> tuple[Binder, int, int] | None:
    """`at least two`, `more than 2`, `exactly 2`, `2`: how, how many, and where the next word stands."""
    leads = {
        ("at", "least"): (Binder.AT_LEAST, 0),
        ("at", "most"): (Binder.AT_MOST, 0),
        ("more", "than"): (Binder.AT_LEAST, 1),
        ("fewer", "than"): (Binder.AT_MOST, -1),
        ("exactly",): (Binder.EXACTLY, 0),
        (): (Binder.EXACTLY, 0),
    }
    for lead, (binder, change) in leads.items():
        begin = len(lead)
        if tuple(lows[:begin]) == lead and begin < len(words) and (number := number_word(words[begin])) is not None:
            if number + change < 0:
                raise LogicError("fewer than zero is never true: write another number", words[0].at)
            return binder, number + change, begin + 1
    return None
