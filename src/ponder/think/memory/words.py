"""The words by which notes are found: the same for a note and for a question, whatever their language."""

from __future__ import annotations

import re
import unicodedata

MOST_LETTERS = 64  # of one word; what is longer is an identifier, found by its beginning

# Words that say nothing about what a question is about.
_COMMON = """
a about after again all also am an and any anyone anything are as at be because been before being but by can could d
did do does doing don each else ever every few for from further had has have having he her here hers him his how i if
in into is isn it its just kind know let ll m may me might mine more most much must my no not now of off on once only
or other our ours out over own please re s said same say she should so some such t tell than that the their theirs
them then there these they thing this those through time to together too under until up us ve very was wasn we were
what when where which while who whom whose why will with would yes you your yours
"""
STOP = frozenset(_COMMON.split())
# Scripts that write no spaces: Han, Hiragana, Katakana, Hangul syllables, Thai, Lao, Khmer, Myanmar.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ENDINGS = ("ical", "ies", "ied", "ing", "ic", "ed", "es", "ly", "s", "y")


def words_of(text: str) -> list[str]:
    """The words of a text in their order: folded in case and accents, without endings, those of `STOP` left out.

    Scripts without spaces give pairs of neighbouring characters. A word is ASCII letters and digits; one that holds
    others is spelled in hexadecimal after an underscore, so that an index may split at anything else.
    """
    if not text.isascii():
        text = "".join(each for each in unicodedata.normalize("NFKD", text) if unicodedata.category(each) != "Mn")
        text = unicodedata.normalize("NFC", text)  # Hangul in syllables again
    found: list[str] = []
    for run in _RUN.findall(text.casefold()):
        if run in STOP:
            continue
        if run.isascii():
            found.append(_stem(run[:MOST_LETTERS]))
        elif re.match(f"[{_UNSPACED}]", run):
            found += [_spelled(run[at : at + 2]) for at in range(max(1, len(run) - 1))]
        else:
            found.append(_spelled(run[:MOST_LETTERS]))
    return found


def _stem(word: str) -> str:
    """An English word without its ending: "moved", "moves" and "moving" are one, "allergic" and "allergies" too."""
    if len(word) < 4 or not word.isalpha():
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) > 2 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word


def _spelled(word: str) -> str:
    return "_" + word.encode(errors="surrogatepass").hex()
