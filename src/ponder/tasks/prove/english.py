"""Controlled English: sentences of a few fixed shapes, each with one reading (docs/logic.md has the grammar).

What has two readings, or words that the grammar does not have, is refused with the place and a remedy. A phrase that
the grammar does not take apart ("is a good doctor") is one predicate: less follows from it, never something wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from ponder.tasks.prove.english_predicates import MAX_PHRASE, Predicate, PredicateReader
from ponder.tasks.prove.english_words import (
    BE,
    DO,
    EVERY,
    HAVE,
    NONE,
    PRONOUNS,
    SOME,
    UNCLEAR,
    Word,
    Words,
    counting_words,
    is_verb,
    joined_name,
    names_in,
    place_of_words,
    singular,
    symbol_name,
    text_of,
    trimmed,
    verb_stem,
)
from ponder.tasks.prove.logic import (
    Applied,
    Binder,
    BoundVariable,
    Formula,
    LogicError,
    Operation,
    Quantified,
    conjunction,
    negated,
)

MAX_INSIDE = 12  # sentences inside each other
Subject = tuple[Callable[[Predicate], Formula], Words, bool]
"""How a subject takes what is said of it, the words that say it, and whether it is plural."""


def listing(words: Words, known: set[str]) -> tuple[str, list[str]] | None:
    """The class and its members where the sentence lists them: `The people are Ann, Bo and Cy`."""
    if len(words) < 4 or words[0].low != "the" or words[2].low != "are" or not words[3].text[0].isupper():
        return None
    names = names_in(words[3:])
    return None if names is None else (singular(words[1].low, known), names)


class EnglishReader(PredicateReader):
    """Reads the sentences of one text: `read`, a sentence at a time."""

    _inside = 0

    def read(self, words: Words, *, question: bool = False) -> Formula:
        """The formula of a sentence.

        question: it may begin with its verb, as in `Is Ann tall`.
        Raises LogicError, with the place.
        """
        self._inside = 0
        return self._sentence(self._stated(words) if question else words)

    def _stated(self, words: Words) -> Words:
        """A question as the statement that it asks about: `Does Ann like Bo` as `Ann like Bo`."""
        if len(words) < 3 or words[0].low not in BE | DO | HAVE:
            return words
        end = 3 if words[1].low == "the" else 1 + len(self._name_words(words[1:]))
        verb = [] if words[0].low in DO else [words[0]]
        return [*words[1:end], *verb, *words[end:]]

    # Sentences --------------------------------------------------------------------------------------------------------

    def _sentence(self, words: Words) -> Formula:
        words = trimmed(words)
        if not words:
            raise LogicError("a sentence is missing here: write one, or leave the connective out")
        self._inside += 1
        if self._inside > MAX_INSIDE:
            raise LogicError("the sentence is nested too deep: split it", words[0].at)
        try:
            return self._compound(words)
        finally:
            self._inside -= 1

    def _compound(self, words: Words) -> Formula:
        lows = [word.low for word in words]
        if lows[0] == "if":
            return self._conditional(words, lows)
        if (at := place_of_words(lows, ("if", "and", "only", "if"))) is not None:
            return Operation("<->", (self._sentence(words[:at]), self._sentence(words[at + 4 :])))
        for denial in ("is not the case that", "is not true that", "is false that"):
            if lows[: len(denial.split()) + 1] == ["it", *denial.split()]:
                return negated(self._sentence(words[len(denial.split()) + 1 :]))
        if "either" in lows:
            return self._either(words, lows)
        if "and" in lows and "or" in lows and "of" not in lows:
            at = words[lows.index("or")].at
            raise LogicError("'and' and 'or' in one sentence have two readings: write two sentences", at)
        for word in ("or", "and"):
            if (parts := self._split(words, lows, word)) is not None:
                return Operation(word, tuple(parts))
        return self._simple(words)

    def _conditional(self, words: Words, lows: list[str]) -> Formula:
        """If S then S; if S, S."""
        at = lows.index("then") if "then" in lows else lows.index(",") if "," in lows else None
        if at is None:
            raise LogicError("'if' without 'then': write 'if … then …'", words[0].at)
        if "if" in lows[1:at]:
            raise LogicError("'if' inside a condition has two readings: write two sentences", words[0].at)
        return Operation("->", (self._sentence(words[1:at]), self._sentence(words[at + 1 :])))

    def _either(self, words: Words, lows: list[str]) -> Formula:
        """Either S or S, but not both; also with names and with what is said of one."""
        if lows[-3:] != ["but", "not", "both"]:
            raise LogicError(
                "'either … or' has two readings: add ', but not both', or leave 'either' out",
                words[lows.index("either")].at,
            )
        at = lows.index("either")
        rest = [*words[:at], *words[at + 1 : -3]]
        either = self._sentence(rest)
        if not (isinstance(either, Operation) and either.operator == "or" and len(either.args) == 2):
            raise LogicError("'either' needs two sides with 'or' between them: write them", words[at].at)
        return Operation("<->", (either.args[0], negated(either.args[1])))

    def _split(self, words: Words, lows: list[str], word: str) -> list[Formula] | None:
        """The sentences that `word` joins; None where it joins something smaller."""
        cuts = [place for place, low in enumerate(lows) if low == word]
        if not cuts:
            return None
        pieces = [words[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(words)], strict=True)]
        try:
            return [self._sentence(piece) for piece in pieces]
        except LogicError:
            return None

    # A subject and what is said of it ---------------------------------------------------------------------------------

    def _simple(self, words: Words) -> Formula:
        first = words[0]
        if first.low == "there":
            return self._existence(words)
        if first.low == "it":
            return self._proposition(words)
        if first.low in UNCLEAR and not (first.text == "I" and is_verb(words, 1)):
            raise LogicError(f"{first.text!r} can mean several things: write the name instead", first.at)
        subject, rest, plural = self._subject(words)
        if not rest:
            raise LogicError(f"nothing is said of {text_of(words)!r}: add a verb, such as 'is'", first.at)
        if rest[0].low == ",":
            raise LogicError("a comma parts the subject from what is said: leave it out", rest[0].at)
        return subject(self._said(rest, plural))

    def _subject(self, words: Words) -> Subject:
        """How the subject takes what is said of it, the words that say it, and whether it is plural."""
        lows = [word.low for word in words]
        if lows[0] == "neither":
            return self._neither(words, lows)
        if lows[:2] in (["not", "all"], ["not", "every"]):
            subject, rest, plural = self._subject(words[1:])
            return (lambda said: negated(subject(said))), rest, plural
        if lows[0] == "only":
            return self._only(words)
        if (counted := self._counted(words, lows)) is not None:
            return counted
        if lows[0] in PRONOUNS:
            which, rest = self._relative(words[1:]) if lows[1:2] in (["that"], ["who"]) else (None, words[1:])
            return self._over(None, PRONOUNS[lows[0]], which), rest, False
        if lows[:2] == ["no", "one"] and len(words) > 2 and words[2].low in (BE | HAVE):
            return self._over(None, "no", None), words[2:], False
        if lows[0] in EVERY | NONE | SOME and len(words) > 1 and not is_verb(words, 1):
            return self._quantified(words)
        if lows[0] in ("a", "an") and not is_verb(words, 1):
            raise LogicError(f"'{words[0].text}' has two readings here: write 'every' or 'some'", words[0].at)
        return self._named(words, lows)

    def _quantified(self, words: Words) -> Subject:
        """every N, no N, some N, with `that …` after it."""
        noun, low = words[1], words[0].low
        rest = words[2:]
        which = None
        if rest and rest[0].low in ("that", "who", "which"):
            which, rest = self._relative(rest)
        elif len(rest) > 1 and not is_verb(rest, 0) and any(is_verb(rest, i) for i in range(1, min(3, len(rest)))):
            noun = self._compound_noun(words[1:])
            rest = rest[len(noun.text.split("_")) - 1 :]
        if low in EVERY and len(rest) > 1 and rest[0].low in BE and rest[1].low == "not":
            raise LogicError(
                f"'{words[0].text} … not' has two readings: write 'No {noun.text} …' or 'Not all {noun.text} …'",
                rest[1].at,
            )
        kind = "every" if low in EVERY else "no" if low in NONE else "some"
        plural = low in ("all", "some", "no") and bool(rest) and rest[0].low not in ("is", "was", "does", "has")
        return self._over(noun, kind, which), rest, plural

    def _compound_noun(self, words: Words) -> Word:
        """`good doctor` before the verb, as one noun."""
        end = next(i for i in range(1, len(words)) if is_verb(words, i))
        for word in words[:end]:
            self._check_phrase_word(word)
        return Word(
            "_".join(word.text for word in words[:end]), "_".join(word.low for word in words[:end]), words[0].at
        )

    def _relative(self, words: Words) -> tuple[Predicate, Words]:
        """`that is not tall` after a noun, and the words after it, which begin with the verb of the sentence."""
        places = range(len(words) - 1, 1, -1)
        likely = [end for end in places if is_verb(words, end)]
        possible = [end for end in places if words[end].text.endswith("s") and not self._is_name(words, end)]
        for end in [*likely, *possible]:
            try:
                return self._said(words[1:end], False), words[end:]
            except LogicError:
                continue
        raise LogicError(f"'{words[0].text} …' is followed by nothing that is said: add it", words[0].at)

    def _only(self, words: Words) -> Subject:
        """Only N are P: every P is an N. Only Ann is P: nothing else is."""
        if len(words) > 1 and self._is_name(words, 1):
            subject, rest, plural = self._named(words[1:], [word.low for word in words[1:]])
            name = Applied(joined_name(self._name_words(words[1:])))
            self.names.add(name.name)
            variable = f"x{next(self._fresh)}"

            def alone(said: Predicate) -> Formula:
                same = Operation("=", (BoundVariable(variable), name))
                others = Quantified(Binder.ALL, variable, None, Operation("->", (said(BoundVariable(variable)), same)))
                return Operation("and", (subject(said), others))

            return alone, rest, plural
        variable = f"x{next(self._fresh)}"
        sort, restriction = self._restricted(words[1] if len(words) > 1 else None, None, variable)

        def made(said: Predicate) -> Formula:
            if not restriction:
                raise LogicError(
                    f"'only {words[1].text}' says nothing, they are all there is: leave it out", words[0].at
                )
            body = Operation("->", (said(BoundVariable(variable)), conjunction(restriction)))
            return Quantified(Binder.ALL, variable, sort, body)

        return made, words[2:], True

    def _counted(self, words: Words, lows: list[str]) -> Subject | None:
        """at least 2 people; exactly one of Ann, Bo and Cy."""
        read = counting_words(lows, words)
        if read is None:
            return None
        binder, number, begin = read
        if begin < len(lows) and lows[begin] == "of":
            end = next((i for i in range(begin + 1, len(words)) if is_verb(words, i)), len(words))
            names = names_in(words[begin + 1 : end])
            if names is None:
                raise LogicError(
                    "after 'of' names should stand: write them, as in 'of Ann, Bo and Cy'", words[begin].at
                )
            self.names.update(names)
            return (
                (lambda said: among(binder, number, [said(Applied(name)) for name in names])),
                words[end:],
                number != 1,
            )
        if begin >= len(words):
            raise LogicError("a noun should follow the number: write one", words[-1].at)
        variable = f"x{next(self._fresh)}"
        sort, restriction = self._restricted(words[begin], None, variable)

        def made(said: Predicate) -> Formula:
            body = conjunction([*restriction, said(BoundVariable(variable))])
            return Quantified(binder, variable, sort, body, number)

        return made, words[begin + 1 :], number != 1

    def _neither(self, words: Words, lows: list[str]) -> Subject:
        """Neither Ann nor Bo …"""
        if "nor" not in lows:
            raise LogicError("'neither' without 'nor': write 'neither … nor …'", words[0].at)
        at = lows.index("nor")
        end = next((i for i in range(at + 2, len(words)) if is_verb(words, i)), at + 2)
        names = [self._term(words[1:at]), self._term(words[at + 1 : end])]
        return (lambda said: Operation("and", tuple(negated(said(name)) for name in names))), words[end:], False

    def _named(self, words: Words, lows: list[str]) -> Subject:
        """Ann; Ann and Bo; Ann or Bo; the door."""
        end = next((i for i in range(1, len(words)) if is_verb(words, i)), None)
        if end is None:
            end = len(self._name_words(words)) if self._is_name(words, 0) else 2 if lows[0] == "the" else len(words)
        head = words[: end + 0]
        if head and head[0].low == "both":
            head = head[1:]
        joints = [word.low for word in head if word.low in ("and", "or")]
        if not joints:
            term = self._term(head)
            if end < len(words) and words[end].low == "are":
                raise LogicError(
                    f"{text_of(head)!r} are: all of them, or some? write 'All {text_of(head).lower()} are' or 'Some …'",
                    head[0].at,
                )
            return (lambda said: said(term)), words[end:], False
        names = names_in(head)
        if names is None:
            raise LogicError(f"{text_of(head)!r} is not a list of names: write them, as in 'Ann and Bo'", head[0].at)
        self.names.update(names)
        operator = joints[-1]
        return (lambda said: Operation(operator, tuple(said(Applied(name)) for name in names))), words[end:], True

    # Sentences without a subject --------------------------------------------------------------------------------------

    def _existence(self, words: Words) -> Formula:
        """There is a …; there are no …"""
        lows = [word.low for word in words]
        if len(words) < 4 or lows[1] not in BE:
            raise LogicError("'there' begins 'there is a …' or 'there are no …': write it so", words[0].at)
        kind = "no" if lows[2] == "no" else "some" if lows[2] in ("a", "an", "some") else None
        if kind is None:
            read = self._counted(words[2:], lows[2:])
            if read is None:
                raise LogicError(
                    f"'there {lows[1]} {lows[2]}' does not say how many: write 'a', 'no' or a number", words[2].at
                )
            subject, rest, _ = read
            return subject(self._which(rest) if rest else lambda term: Operation("=", (term, term)))
        rest = words[4:]
        which = self._which(rest) if rest else None
        over = self._over(words[3], "some", which)
        found = over(lambda term: Operation("=", (term, term)))
        if isinstance(found, Quantified) and isinstance(found.body, Operation) and found.body.operator == "and":
            found = Quantified(found.binder, found.variable, found.sort, conjunction(list(found.body.args[:-1])))
        return negated(found) if kind == "no" else found

    def _which(self, words: Words) -> Predicate:
        if words[0].low not in ("that", "who", "which") or len(words) < 2:
            raise LogicError(f"{text_of(words)!r} is left over: write 'that …', or another sentence", words[0].at)
        return self._said(words[1:], False)

    def _proposition(self, words: Words) -> Formula:
        """It is raining; it rains: one statement that is not taken apart."""
        lows = [word.low for word in words]
        holds = True
        if lows[1:3] == ["does", "not"]:
            words, holds = [words[0], *words[3:]], False
        elif len(words) > 2 and lows[1] in BE and lows[2] == "not":
            words, holds = [*words[:2], *words[3:]], False
        rest = words[1:]
        if rest and rest[0].low in BE:
            rest = rest[1:]
        if not rest or len(rest) > MAX_PHRASE:
            raise LogicError(f"{text_of(words)!r} is not read: begin with a name", words[0].at)
        for word in rest:
            self._check_phrase_word(word)
        lows = [word.low for word in words]
        if len(lows) == 2:  # it rains, it does not rain
            lows[1] = verb_stem(lows[1])
        made = Applied("_".join(map(symbol_name, lows)))
        return made if holds else negated(made)


def among(binder: Binder, number: int, cases: list[Formula]) -> Formula:
    """At least, at most or exactly `number` of `cases`, in and, or and not."""

    def at_least(least: int) -> Formula:
        if least <= 0:
            return Operation("or", (cases[0], negated(cases[0])))
        if least > len(cases):
            return Operation("and", (cases[0], negated(cases[0])))
        choices = [conjunction(list(each)) for each in combinations(cases, least)]
        return choices[0] if len(choices) == 1 else Operation("or", tuple(choices))

    match binder:
        case Binder.AT_LEAST:
            return at_least(number)
        case Binder.AT_MOST:
            return negated(at_least(number + 1))
    return Operation("and", (at_least(number), negated(at_least(number + 1))))
