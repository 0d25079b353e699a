"""Controlled English: what is said of a subject, and the terms and quantifiers that it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from ponder.tasks.prove.english_words import (
    BE,
    DO,
    EVERY,
    HAVE,
    IN_ORDER,
    MEANT,
    NONE,
    PREPOSITIONS,
    PRONOUNS,
    SOME,
    Word,
    Words,
    comma_parts,
    comparatives,
    counting_words,
    joined_name,
    measured,
    names_in,
    number_word,
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
    Numeral,
    Operation,
    Quantified,
    conjunction,
    negated,
)

MAX_PHRASE = 4  # words of a predicate that is not taken apart
Predicate = Callable[[Formula], Formula]


class PredicateReader:
    """Reads the sentences of one text.

    known: all its words in lower case, by which plurals find their singulars.
    classes: those whose members are listed; they are sorts.
    names, counts: the names and the functions that count, found so far.
    """

    def __init__(self, known: set[str], classes: Mapping[str, Sequence[str]]) -> None:
        self.known, self.classes = known, classes
        self.names: set[str] = set()
        self.counts: set[str] = set()
        self._fresh = count(1)

    # What is said -----------------------------------------------------------------------------------------------------

    def _said(self, words: Words, plural: bool) -> Predicate:
        """The predicate that a verb and the words after it are."""
        words = trimmed(words)
        if not words:
            raise LogicError("a verb is missing here: write one, such as 'is'")
        low = words[0].low
        if low in BE:
            return self._coordinated(words[1:], lambda part: self._being(part, plural), words[0])
        if low in HAVE:
            return self._having(words[1:], words[0])
        if low in DO:
            if len(words) < 2 or words[1].low != "not":
                raise LogicError(f"'{words[0].text}' without 'not': leave it out", words[0].at)
            rest = words[2:]
            if not rest:
                raise LogicError("a verb should follow 'not': write one", words[0].at)
            inner = self._having(rest[1:], rest[0]) if rest[0].low in HAVE else self._doing(rest)
            return lambda term: negated(inner(term))
        return self._coordinated(words, self._doing, words[0])

    def _coordinated(self, words: Words, read: Callable[[Words], Predicate], after: Word) -> Predicate:
        """`tall and not rich`, `tall or rich`, `neither tall nor rich`: each part by `read`."""
        lows = [word.low for word in words]
        if not words:
            raise LogicError(f"something should follow '{after.text}': write what is said", after.at)
        if lows[0] == "neither" and "nor" in lows:
            at = lows.index("nor")
            parts = [read(words[1:at]), read(words[at + 1 :])]
            return lambda term: Operation("and", tuple(negated(part(term)) for part in parts))
        if lows[0] == "both" and len(words) > 1:
            words, lows = words[1:], lows[1:]
        for operator in ("or", "and"):
            if operator in lows:
                cuts = [place for place, low in enumerate(lows) if low == operator]
                pieces = [words[a + 1 : b] for a, b in zip([-1, *cuts], [*cuts, len(words)], strict=True)]
                if not all(comma_parts(whole) for whole in pieces):
                    raise LogicError(f"something is missing beside '{operator}': write it", words[cuts[0]].at)
                try:
                    predicates = [read(piece) for whole in pieces for piece in comma_parts(whole)]
                except LogicError:
                    break  # it joins names
                return lambda term, operator=operator: Operation(operator, tuple(each(term) for each in predicates))  # type: ignore[misc]
        return read(words)

    def _being(self, words: Words, plural: bool) -> Predicate:
        """What follows is or are."""
        words = trimmed(words)
        if not words:
            raise LogicError("something is missing after 'is': write what is said")
        lows = [word.low for word in words]
        if lows[0] in BE:  # `Ann is tall and is rich`
            return self._being(words[1:], plural)
        if lows[0] == "not":
            inner = self._being(words[1:], plural)
            return lambda term: negated(inner(term))
        if "than" in lows:
            return self._compared(words, lows)
        if lows[0] == "as" and "as" in lows[1:]:
            at = lows.index("as", 1)
            adjective = "_".join(lows[1:at])
            known = [each for each in comparatives(adjective) if each in self.known]
            return self._measure(known[0] if known else f"more {adjective}", "=", words[at + 1 :], flip=bool(known))
        for order in IN_ORDER:
            size = len(order.split())
            for lead in ([], ["to", "the"], ["the"]):
                begin = len(lead)
                after = words[begin + size :]
                if lows[: begin + size] == [*lead, *order.split()] and self._object_begins(after):
                    return self._measure(order, ">", after)
        if lows[0] == "equal" and lows[1:2] == ["to"]:
            return self._equal(words[2:])
        if lows[0] == "the" or self._is_name(words, 0):
            relation = next((i for i, low in enumerate(lows) if low in PREPOSITIONS and i > 1), None)
            return self._equal(words) if relation is None else self._phrase(words[1:], plural=False)
        if lows[0] in ("a", "an"):
            return self._phrase(words[1:], plural=False)
        return self._phrase(words, plural)

    def _equal(self, words: Words) -> Predicate:
        other = self._term(words)
        return lambda term: Operation("=", (term, other))

    def _compared(self, words: Words, lows: list[str]) -> Predicate:
        """taller than Bo; more honest than Bo."""
        at = lows.index("than")
        head = [low for low in lows[:at] if low != ","]
        if len(head) == 1 and (head[0].endswith("er") or head[0] in ("less", "more")):
            return self._measure("greater" if head[0] == "more" else head[0], ">", words[at + 1 :])
        if len(head) == 2 and head[0] in ("more", "less"):
            return self._measure(f"more {head[1]}", ">" if head[0] == "more" else "<", words[at + 1 :], flip=False)
        raise LogicError(
            f"{text_of(words[:at])!r} does not compare: write 'taller than' or 'more honest than'", words[0].at
        )

    def _measure(self, comparative: str, relation: str, words: Words, *, flip: bool = True) -> Predicate:
        """A comparison of two things by one measure. flip: `shorter` compares by `taller`, the other way round."""
        name, upward = measured(comparative) if flip else (comparative, True)
        relation = relation if upward or relation == "=" else {">": "<", "<": ">"}[relation]
        return self._ordered(name, relation, words)

    def _ordered(self, measure: str, relation: str, words: Words) -> Predicate:
        """How the measure of a thing relates to a number, or to that of others."""
        name = measure.replace(" ", "_")
        if len(words) == 1 and (number := number_word(words[0])) is not None:
            return lambda term: Operation(relation, (Applied(name, (term,)), Numeral(number)))
        return self._with_object(
            words, lambda term, other: Operation(relation, (Applied(name, (term,)), Applied(name, (other,))))
        )

    def _phrase(self, words: Words, plural: bool) -> Predicate:
        """One predicate, or a relation where a preposition and a name end it: `friend of Bo`."""
        words = trimmed(words)
        relation = next(
            (i for i, word in enumerate(words) if word.low in PREPOSITIONS and self._object_begins(words[i + 1 :])),
            None,
        )
        head = words if relation is None else words[: relation + 1]
        if not head or len(head) > MAX_PHRASE:
            at = words[0].at if words else None
            raise LogicError(f"{text_of(words)!r} is longer than {MAX_PHRASE} words: use fewer, or a formula", at)
        for word in head:
            self._check_phrase_word(word)
        lows = [word.low for word in head]
        if plural and relation is None:
            lows[-1] = singular(lows[-1], self.known)
        name = "_".join(map(symbol_name, lows))
        if relation is None:
            if name in self.classes:
                return lambda term: Operation("=", (term, term))  # its sort says so
            return lambda term: Applied(name, (term,))
        return self._with_object(words[relation + 1 :], lambda term, other: Applied(name, (term, other)))

    def _object_begins(self, words: Words) -> bool:
        """Whether a name, `the …`, `every …` or `everyone` stands here."""
        return bool(words) and (self._is_name(words, 0) or words[0].low in {"the", *EVERY, *NONE, *SOME, *PRONOUNS})

    def _with_object(self, words: Words, relate: Callable[[Formula, Formula], Formula]) -> Predicate:
        """The relation to what stands last: names, or `every …`."""
        words = trimmed(words)
        if not words:
            raise LogicError("a name is missing at the end: write one")
        if words[0].low in EVERY | NONE | SOME | set(PRONOUNS):
            if words[0].low in PRONOUNS:
                over, rest = self._over(None, PRONOUNS[words[0].low], None), words[1:]
            else:
                if len(words) < 2:
                    raise LogicError(f"a noun should follow '{words[0].text}': write one", words[0].at)
                kind = "every" if words[0].low in EVERY else "no" if words[0].low in NONE else "some"
                noun = Word("_".join(w.text for w in words[1:]), "_".join(w.low for w in words[1:]), words[1].at)
                over, rest = self._over(noun, kind, None), []
            if rest:
                raise LogicError(f"{text_of(rest)!r} is left over: write another sentence for it", rest[0].at)
            return lambda term: over(lambda other: relate(term, other))
        names = names_in(words) if any(word.low in ("and", "or") for word in words) else None
        if names is not None:
            self.names.update(names)
            operator = "or" if any(word.low == "or" for word in words) else "and"
            return lambda term: Operation(operator, tuple(relate(term, Applied(name)) for name in names))
        other = self._term(words)
        return lambda term: relate(term, other)

    def _doing(self, words: Words) -> Predicate:
        """Another verb, with an object or a phrase."""
        words = trimmed(words)
        verb, rest = words[0], words[1:]
        self._check_phrase_word(verb)
        if self._is_name(words, 0):
            raise LogicError(f"{verb.text!r} stands where a verb should: write one", verb.at)
        name = symbol_name(verb_stem(verb.low))
        if not rest:
            return lambda term: Applied(name, (term,))
        if self._object_begins(rest):
            return self._with_object(rest, lambda term, other: Applied(name, (term, other)))
        for order in IN_ORDER:
            size = len(order.split())
            if [word.low for word in rest[:size]] == order.split() and self._object_begins(rest[size:]):
                measure, upward = measured(order)
                return self._ordered(f"{name}_{measure}", ">" if upward else "<", rest[size:])
        return self._phrase([Word(verb.text, name, verb.at), *rest], plural=False)

    def _having(self, words: Words, after: Word) -> Predicate:
        """has 3 cats; has more cats than Bo; has a cat."""
        words = trimmed(words)
        if not words:
            raise LogicError(f"something should follow '{after.text}': write what", after.at)
        lows = [word.low for word in words]
        relation, number, begin = ">=", 1, 0
        read = counting_words(lows, words)
        compares = "than" in lows and lows[1] != "than"
        if compares or ("as" in lows and "many" in lows):
            return self._having_compared(words, lows)
        if read is not None:
            binder, number, begin = read
            relation = {Binder.AT_LEAST: ">=", Binder.AT_MOST: "<=", Binder.EXACTLY: "="}[binder]
        elif lows[0] == "no":
            relation, number, begin = "=", 0, 1
        elif lows[0] in ("a", "an"):
            begin = 1
        else:
            raise LogicError(
                f"'{after.text} {words[0].text}' does not say how many: write 'a', 'no' or a number", words[0].at
            )
        counted = self._count_of(words[begin:], after)
        return lambda term: Operation(relation, (Applied(counted, (term,)), Numeral(number)))

    def _having_compared(self, words: Words, lows: list[str]) -> Predicate:
        """3 more cats than Bo; as many cats as Bo; twice as many cats as Bo."""
        if "than" in lows:
            at = lows.index("than")
            exact = number_word(words[0])
            head = words[1:] if exact is not None else words
            if head[0].low not in ("more", "fewer", "less"):
                raise LogicError(f"{head[0].text!r} does not compare: write 'more' or 'fewer'", head[0].at)
            upward = head[0].low == "more"
            counted = self._count_of(words[len(words) - len(head) + 1 : at], head[0])
            relation = "=" if exact is not None else ">" if upward else "<"
            change = Numeral((exact or 0) if upward else -(exact or 0))

            def more(term: Formula, other: Formula) -> Formula:
                than: Formula = Applied(counted, (other,))
                than = than if exact is None else Operation("+", (than, change))
                return Operation(relation, (Applied(counted, (term,)), than))

            return self._with_object(words[at + 1 :], more)
        times = 2 if lows[0] == "twice" else 1
        begin = lows.index("many") + 1
        if "as" not in lows[begin:]:
            raise LogicError("'as many' without a second 'as': write 'as many … as …'", words[0].at)
        at = lows.index("as", begin)
        counted = self._count_of(words[begin:at], words[begin - 1])
        return self._with_object(
            words[at + 1 :],
            lambda term, other: Operation(
                "=",
                (
                    Applied(counted, (term,)),
                    Applied(counted, (other,))
                    if times == 1
                    else Operation("*", (Numeral(2), Applied(counted, (other,)))),
                ),
            ),
        )

    def _count_of(self, words: Words, after: Word) -> str:
        """The function that counts what `words` name."""
        if not words or len(words) > MAX_PHRASE:
            raise LogicError(f"a noun of at most {MAX_PHRASE} words should follow '{after.text}': write one", after.at)
        for word in words:
            self._check_phrase_word(word)
        name = "num_" + "_".join(symbol_name(singular(word.low, self.known)) for word in words)
        self.counts.add(name)
        return name

    # Quantifiers ------------------------------------------------------------------------------------------------------

    def _over(self, noun: Word | None, kind: str, which: Predicate | None) -> Callable[[Predicate], Formula]:
        variable = f"x{next(self._fresh)}"
        sort, restriction = self._restricted(noun, which, variable)

        def made(said: Predicate) -> Formula:
            body = said(BoundVariable(variable))
            if kind == "some":
                return Quantified(Binder.SOME, variable, sort, conjunction([*restriction, body]))
            body = negated(body) if kind == "no" else body
            if restriction:
                body = Operation("->", (conjunction(restriction), body))
            return Quantified(Binder.ALL, variable, sort, body)

        return made

    def _restricted(
        self, noun: Word | None, which: Predicate | None, variable: str
    ) -> tuple[str | None, list[Formula]]:
        """The sort of a noun whose members are listed, and what else holds of the variable."""
        parts: list[Formula] = []
        sort = None
        if noun is not None:
            if noun.low in MEANT or noun.low == ",":
                raise LogicError(f"{noun.text!r} stands where a noun should: write one", noun.at)
            name = singular(noun.low, self.known)
            sort = name if name in self.classes else None
            parts += [] if sort else [Applied(symbol_name(name), (BoundVariable(variable),))]
        elif len(self.classes) == 1:
            sort = next(iter(self.classes))
        return sort, parts + ([which(BoundVariable(variable))] if which else [])

    # Terms ------------------------------------------------------------------------------------------------------------

    def _is_name(self, words: Words, at: int) -> bool:
        word = words[at]
        return word.text[0].isupper() and (word.low not in MEANT or len(word.text) == 1)

    def _name_words(self, words: Words) -> Words:
        """The capitalised words that `words` begin with."""
        end = 0
        while end < len(words) and self._is_name(words, end):
            end += 1
        return words[:end]

    def _term(self, words: Words) -> Formula:
        """What a name, or `the …`, stands for."""
        words = trimmed(words)
        if not words:
            raise LogicError("a name is missing here: write one")
        if words[0].low == "the" and len(words) > 1:
            for word in words[1:]:
                self._check_phrase_word(word)
            name = "the_" + "_".join(symbol_name(word.low) for word in words[1:])
            return Applied(name)
        if len(self._name_words(words)) != len(words):
            text = text_of(words)
            raise LogicError(
                f"{text!r} is not a name: begin names with a capital, and classes with 'every', 'some' or 'no'",
                words[0].at,
            )
        name = joined_name(words)
        self.names.add(name)
        return Applied(name)

    def _check_phrase_word(self, word: Word) -> None:
        if word.low in MEANT or word.low == ",":
            raise LogicError(
                f"{word.text!r} does not fit here: write a simpler sentence, or a formula with its sentence after :::",
                word.at,
            )
