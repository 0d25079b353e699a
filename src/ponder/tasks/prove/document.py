"""A text of statements and goals: formulas, controlled English or both, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ponder.tasks.prove.english import EnglishReader, listing
from ponder.tasks.prove.english_words import Word, words_in
from ponder.tasks.prove.formulas import Declarations, parse_formula
from ponder.tasks.prove.logic import (
    Applied,
    Binder,
    BoundVariable,
    Formula,
    LogicError,
    Numeral,
    Operation,
    Quantified,
    Signature,
    Typist,
    check_size,
)

BESIDE = ":::"  # between a formula and the sentence that it says
SIGNS = re.compile(r"[=<>()&|~∀∃∧∨¬→↔⇒⇔≤≥≠]")  # no sentence holds them
LETTER = re.compile(r"[a-z]\d*")  # a statement without words
ITEM = re.compile(r"\s*(?:[-*•]\s+|\(?\d{1,3}[.)]\s+)?")
GOAL = re.compile(
    r"(?:therefore|so|hence|thus|it follows that|does it (?:logically )?follow that|is it true that)[,:]?\s+",
    re.IGNORECASE,
)
MAX_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class Statement:
    """A formula and the words that say it: `text` is what stands from `begin` to `end` in the document."""

    text: str
    begin: int
    end: int
    line: int
    formula: Formula


@dataclass(frozen=True, slots=True)
class Unread:
    """A sentence that is not in the grammar.

    why: what is wrong, where in it, and what to do.
    """

    text: str
    line: int
    column: int
    why: str


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says.

    background: what holds without being said: counts are not negative.
    unread: sentences that the grammar does not have. What is proved holds without them.
    """

    statements: tuple[Statement, ...]
    goals: tuple[Statement, ...]
    signature: Signature
    background: tuple[Formula, ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence or a line before it is read: `text` is all of it, `body` what is read."""

    text: str
    begin: int
    body: str
    body_at: int
    goal: bool
    is_formula: bool


def read_document(text: str, translations: Mapping[str, str] | None = None) -> Document:
    """The statements and goals of `text`, one a line or a sentence; docs/logic.md has the forms.

    translations: formulas for sentences that the grammar does not have (`translate.py`).

    Raises LogicError for a text that is too long, for declarations that are malformed, and for types that do not agree.
    A sentence that cannot be read is in `unread`.
    """
    if len(text) > MAX_CHARACTERS:
        raise LogicError(f"the text has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read: split it")
    declared = Declarations()
    pieces: list[_Piece] = []
    for begin, line in _lines(text):
        if line.strip().startswith("#") or not line.strip():
            continue
        if not _declares(declared, line, begin, text):
            pieces.extend(_pieces(line, begin))
    return _Reading(text, declared, pieces, translations or {}).document()


def _declares(declared: Declarations, line: str, begin: int, text: str) -> bool:
    try:
        return declared.read(line, begin)
    except LogicError as error:
        raise LogicError(f"{_where(text, begin)}: {error}", error.at) from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    begin = 0
    for line in text.splitlines(keepends=True):
        yield begin, line.rstrip("\r\n")
        begin += len(line)


def _pieces(line: str, begin: int) -> Iterator[_Piece]:
    """The sentences of a line, or the one formula in it."""
    asked = line.lstrip().startswith("?")
    if asked:
        line = line.replace("?", " ", 1)
    formula, beside, sentence = line.partition(BESIDE)
    if beside or SIGNS.search(line):
        shown = sentence if sentence.strip() else formula
        at = begin + line.index(shown) + len(shown) - len(shown.lstrip())
        yield _piece(shown.strip(), at, formula.rstrip(), begin, asked, is_formula=True)
        return
    for match in re.finditer(r"[^.?!]+[.?!]*", line[(start := ITEM.match(line).end()) :]):  # type: ignore[union-attr]
        sentence = match[0].strip()
        if sentence.strip(".?! "):
            at = begin + start + match.start() + len(match[0]) - len(match[0].lstrip())
            yield _piece(sentence, at, sentence, at, asked, is_formula=False)


def _piece(text: str, begin: int, body: str, body_at: int, asked: bool, *, is_formula: bool) -> _Piece:
    stripped = body.lstrip()
    body_at += len(body) - len(stripped)
    goal = GOAL.match(stripped)
    read = stripped[goal.end() :] if goal else stripped
    asked = asked or goal is not None or (not is_formula and stripped.endswith("?"))
    return _Piece(text, begin, read, body_at + (goal.end() if goal else 0), asked, is_formula)


class _Reading:
    """The pieces of one text on their way to formulas."""

    def __init__(
        self, text: str, declared: Declarations, pieces: list[_Piece], translations: Mapping[str, str]
    ) -> None:
        self.text, self.declared, self.translations = text, declared, translations
        self.unread: list[Unread] = []
        self.classes: dict[str, tuple[str, ...]] = {}
        known = {word.lower() for word in re.findall(r"[^\W\d_]+", text)}
        self.sentences: list[tuple[_Piece, list[Word]]] = []
        for piece in pieces:
            if (words := self._words(piece, known)) is not None:
                self.sentences.append((piece, words))
        self.english = EnglishReader(known, {**declared.sorts, **self.classes})

    def _words(self, piece: _Piece, known: set[str]) -> list[Word] | None:
        """The words of a sentence that is still to be read; none of a formula. None: it was a list, or is not read."""
        if piece.is_formula:
            return []
        try:
            words = words_in(piece.body, piece.body_at)
            if not words:
                return None
            listed = listing(words, known)
            if listed is None:
                return words
            self._list(*listed, piece.begin)
        except LogicError as error:
            if piece.text in self.translations:
                return []
            self._leave_out(piece, error)
        return None

    def _list(self, name: str, members: list[str], at: int) -> None:
        taken = {member for each in (*self.classes.values(), *self.declared.sorts.values()) for member in each}
        for member in members:
            if member in taken or members.count(member) > 1:
                raise LogicError(f"{member} is listed twice: leave one out", at)
        if name in self.classes or name in self.declared.sorts:
            raise LogicError(f"the members of {name!r} are listed twice: write one list", at)
        self.classes[name] = tuple(members)

    def document(self) -> Document:
        read = [
            (piece, formula) for piece, words in self.sentences if (formula := self._read(piece, words)) is not None
        ]
        sorts = {**self.declared.sorts, **self.classes}
        members = {member for each in sorts.values() for member in each}
        names = self.english.names - members - self.declared.symbols.keys()
        typist = Typist(self.declared.signature(self.classes, names))
        for piece, formula in read:
            self._check_declared(piece, formula)
            typist.add(formula, _where(self.text, piece.begin))
        background = self._counts_are_natural(typist)
        signature = typist.signature()
        made = [(piece, typist.resolved(formula)) for piece, formula in read]
        check_size([formula for _, formula in made], signature)
        statements = [
            Statement(piece.text, piece.begin, piece.begin + len(piece.text), self._line(piece.begin), formula)
            for piece, formula in made
            if not piece.goal
        ]
        goals = [
            Statement(piece.text, piece.begin, piece.begin + len(piece.text), self._line(piece.begin), formula)
            for piece, formula in made
            if piece.goal
        ]
        background = [typist.resolved(each) for each in background]
        unread = tuple(sorted(self.unread, key=lambda each: (each.line, each.column)))
        return Document(tuple(statements), tuple(goals), signature, tuple(background), unread)

    def _read(self, piece: _Piece, words: list[Word]) -> Formula | None:
        try:
            return (
                parse_formula(piece.body, piece.body_at)
                if piece.is_formula
                else self.english.read(words, question=piece.goal)
            )
        except LogicError as error:
            if (formula := self._plain_formula(piece)) is not None:
                return formula
            if piece.text in self.translations:
                return parse_formula(self.translations[piece.text], piece.body_at)
            self._leave_out(piece, error)
            return None

    def _plain_formula(self, piece: _Piece) -> Formula | None:
        """A formula without signs, such as `p and not q`, of letters and declared names alone."""
        try:
            formula = parse_formula(piece.body.rstrip(" ."), piece.body_at)
        except LogicError:
            return None
        known = all(name in self.declared.symbols or LETTER.fullmatch(name) for name in _symbols_in(formula))
        return formula if known else None

    def _leave_out(self, piece: _Piece, error: LogicError) -> None:
        at = piece.body_at if error.at is None else error.at
        line, column = _place(self.text, at)
        self.unread.append(Unread(piece.text, line, column, str(error)))

    def _check_declared(self, piece: _Piece, formula: Formula) -> None:
        """Where symbols are declared, a formula uses no other ones, so that a slip of the pen is found."""
        if not piece.is_formula or not self.declared.symbols:
            return
        known = {
            *self.declared.symbols,
            *(m for each in self.declared.sorts.values() for m in each),
            *self.english.names,
        }
        for name in _symbols_in(formula):
            if name not in known:
                raise LogicError(
                    f"{_where(self.text, piece.begin)}: {name} is not declared: declare it, or mend its spelling",
                    piece.begin,
                )

    def _counts_are_natural(self, typist: Typist) -> list[Formula]:
        """num(x) >= 0 for everything that can be counted of."""
        made: list[Formula] = []
        for name in sorted(self.english.counts):
            body = Operation(">=", (Applied(name, (BoundVariable("x"),)), Numeral(0)))
            formula = Quantified(Binder.ALL, "x", None, body)
            typist.add(formula, name)
            made.append(formula)
        return made

    def _line(self, at: int) -> int:
        return _place(self.text, at)[0]


def _symbols_in(formula: Formula) -> set[str]:
    match formula:
        case Applied(name, args):
            return {name}.union(*map(_symbols_in, args))
        case Operation(_, args):
            return set().union(*map(_symbols_in, args))
        case Quantified(_, _, _, body):
            return _symbols_in(body)
    return set()


def _place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1."""
    line = text.count("\n", 0, at) + 1
    return line, at - (text.rfind("\n", 0, at) + 1) + 1


def _where(text: str, at: int) -> str:
    return f"line {_place(text, at)[0]}"
