"""Free text into formulas by a named model. What it gets wrong is an error of translation, kept apart from proof.

Sentences in controlled English are read by the grammar and never sent. A translation that is not a formula leaves its
sentence unread. One that is a formula may still say something else: `bench/translation.py` measures how often.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ponder.dialogue.messages import Message
from ponder.sampler.protocol import Request, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.prove.document import Document, read_document
from ponder.tasks.prove.formulas import parse_formula
from ponder.tasks.prove.logic import Signature
from ponder.types import SamplingParams, Usage

INSTRUCTIONS = """Translate each sentence into one formula. Write one line for each: `number. formula`.
Formulas: all x. some x. not, and, or, ->, <->, = != < <= > >=, + - *, predicates and functions such as tall(Ann).
Example:
1. Every dog that barks is loud. => 1. all x. dog(x) and bark(x) -> loud(x)
2. Ann is taller than Bo. => 2. taller(Ann) > taller(Bo)
3. Bo isn't in if Ann is. => 3. in(Ann) -> not in(Bo)"""
LINE = re.compile(r"^\s*(\d+)[.):]\s*(?:.*=>\s*(?:\d+[.):]\s*)?)?(.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Translated:
    """formulas: by sentence. failed: what the model wrote for other sentences, and why it is not a formula."""

    formulas: dict[str, str]
    failed: dict[str, str]
    usage: Usage


def translate(sentences: Sequence[str], sampler: Sampler, signature: Signature | None = None) -> Translated:
    """Formulas for sentences, by one greedy answer of the model.

    signature: names that the other sentences use, which the model is told to use too.
    Raises what the sampler raises.
    """
    listed = "\n".join(f"{number}. {' '.join(each.split())}" for number, each in enumerate(sentences, 1))
    names = sorted(signature.symbols) if signature else []
    use = f"\nUse these names where they fit: {', '.join(names)}." if names else ""
    params = SamplingParams(temperature=0.0)
    request = Request(prompt=(Message.user(f"{INSTRUCTIONS}{use}\n\nSentences:\n{listed}"),), params=params)
    (completion,) = run_sync(sampler.sample(request))
    written = {int(number): formula.strip("` ") for number, formula in LINE.findall(completion.text)}
    made, failed = dict[str, str](), dict[str, str]()
    for number, sentence in enumerate(sentences, 1):
        formula = written.get(number, "")
        try:
            parse_formula(formula)
        except ValueError as error:
            failed[sentence] = f"translated as {formula[:80]!r}: {error}" if formula else "not translated"
        else:
            made[sentence] = formula
    return Translated(made, failed, completion.usage)


def read_translated(text: str, sampler: Sampler) -> tuple[Document, Translated | None]:
    """The document of a text, with what the grammar does not read translated; None: there was nothing to translate."""
    document = read_document(text)
    if not document.unread:
        return document, None
    translated = translate([each.text for each in document.unread], sampler, document.signature)
    return read_document(text, translated.formulas), translated
