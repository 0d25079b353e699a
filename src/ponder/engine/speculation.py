"""Speculation: what a sequence says next is guessed, and one pass runs its last token and the guesses together.

The pass picks the next token as ever, and keeps the logits after each guess. Where that token is the first guess, the
next step needs no pass: it picks from logits that are there. This goes on to the first guess that is wrong; what stands
after it is thrown away, and its pages are freed. Each token is picked in a separate step, by the rules and with the
random number that it would have without guesses. So limits, grammars, folds, forks, aborts and the bill are the same
with and without.

Guesses are looked up (Saxena, "Prompt lookup decoding", 2023): what followed the last tokens where they stood before,
in the prompt, in all that was generated, or in other samples of the same prompt. Where nothing is found a small model
of the same vocabulary may guess (Leviathan et al., arXiv 2211.17192; here its guesses are greedy, and right where the
draw gives the same id).
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

from ponder.engine.blocks import CacheKey
from ponder.engine.scheduler import Counters, Scheduler, Step
from ponder.engine.sequence import FinishEvent, Sequence
from ponder.types import PhaseTokens, SamplingParams

Speculate = Literal["auto", "on", "off"]

ROWS = 16
"""Rows of a pass with guesses: what a tile of the processor takes at once."""
FEW_STREAMS = 4
"""Sequences beside which guesses still pay ("auto"): with more of them too few rows are left for each."""
WORTH = 0.6
"""Guesses that must be right in the mean for a pass to have them ("auto"): less does not make up for the rows."""
DRAFTED = 4
"""Guesses that a small model is asked for: each of them takes a pass."""
LONGEST_MATCH = 8
"""Tokens that a match is looked at for."""
_LOOKED_AT = 8  # places at which the last two tokens stood before
_RESTS = 7  # tokens between two looks after many in vain: a look costs a few hundredths of a small model's pass
_WEIGHT = 0.15  # of the latest result in the mean
_AT_FIRST = 0.5, 1.0  # the mean before there is any, of matches up to 3 tokens and of longer ones
_AT_LEAST = 3  # guesses of a match, and two more for each that was right in the mean
_TRY_AGAIN = 32  # passes after which a small model that was mostly wrong is asked again
_TEXTS, _QUESTIONS = 4, 8  # samples of a prompt that are looked into, and prompts whose samples are kept


class Drafts(Protocol):
    """The engine of a small model."""

    window: int

    def generate(self, prompts: list[list[int]], params: SamplingParams) -> list[FinishEvent]: ...


class Speculation:
    """Guesses for one engine's steps."""

    def __init__(
        self,
        speculate: Speculate,
        scheduler: Scheduler,
        counters: Counters,
        tokens: PhaseTokens,
        window: int,
        draft: Drafts | None,
    ) -> None:
        self._speculate = speculate
        self._scheduler = scheduler
        self._counters = counters
        # Ids after which the context does not go on, or in several voices.
        self._last = {*tokens.end, tokens.fold, None if tokens.council is None else tokens.council.spawn}
        self._window = window
        self._guesser = Guesser(draft, always=speculate == "on")
        self._ahead: list[_Ahead] = []

    def known(self) -> Step | None:
        """A step of the sequences whose next logits the last pass has computed; None where there are none."""
        if not self._ahead:
            return None
        step = Step(ran=True)
        self._ahead = [each for each in self._ahead if each.sequence.pages]  # others were aborted meanwhile
        for each in self._ahead:
            step.add(each.sequence, 1)
        step.rows = [each.row for each in self._ahead]
        return step if self._ahead else None

    def guess(self, step: Step | None) -> Step | None:
        """The step; with guesses where it does nothing but decode, few sequences, each in one voice."""
        if step is None or self._speculate == "off" or step.num_rows != len(step.ready):
            return step
        if any(sequence.council for sequence in step.ready):
            return step
        if self._speculate == "auto" and len(step.ready) > FEW_STREAMS:
            return step
        self._guesser.keep_only(step.ready)
        most = max(ROWS // len(step.ready), FEW_STREAMS) - 1
        drafts = [self._guesses(sequence, most) for sequence in step.ready]
        if any(drafts):
            self._add(step, drafts)
        return step

    def _add(self, step: Step, drafts: list[list[int]]) -> None:
        """The chunks of a step that decodes run their guesses too. Logits after guesses come last."""
        rows: list[int] = []
        guessed: list[int] = []
        for chunk, sequence, guesses in zip(step.chunks, step.ready, drafts, strict=True):
            row = len(rows) + len(guessed)
            rows.append(row)
            if guesses:
                step.drafts[sequence] = guesses
                chunk.length += len(guesses)
                self._ahead.append(_Ahead(sequence, deque(guesses), len(step.ready) + len(guessed) - 1))
                guessed += range(row + 1, row + 1 + len(guesses))
        step.rows, step.num_rows = rows + guessed, len(rows) + len(guessed)

    def _guesses(self, sequence: Sequence, most: int) -> list[int]:
        guesses = self._guesser.guess(sequence, most)
        if not guesses:
            return guesses
        # The last token that may come is picked from the logits of the one before it.
        left = min(sequence.limit - sequence.num_generated, self._window - len(sequence.tokens)) - 1
        end = next((at for at, id in enumerate(guesses) if id in self._last), len(guesses))
        wanted = min(left, end)
        if wanted < 1:
            return []
        guesses = guesses[: self._scheduler.room_for_guesses(sequence, wanted)]
        self._counters.drafted_tokens += len(guesses)
        return guesses

    def settle(self) -> None:
        """After a step: whose token was guessed goes on without a pass, the other guesses are thrown away."""
        if not self._ahead:
            return
        settled, self._ahead = self._ahead, []
        for each in settled:
            sequence = each.sequence
            if not sequence.pages:  # it has ended
                continue
            folded = sequence.num_pending > 1
            if not folded and each.guesses and each.guesses.popleft() == sequence.tokens[-1]:
                self._counters.accepted_tokens += 1
                each.row += 1
                self._ahead.append(each)
            else:
                self._scheduler.give_back(sequence)


@dataclass(slots=True)
class _Ahead:
    """Guesses that a pass has run and that are neither right nor wrong yet.

    row: of the pass's logits, the one that the token before them is picked from.
    """

    sequence: Sequence
    guesses: deque[int]
    row: int


class _Text:
    """The prompt of a request and what was generated, and where each two neighbouring ids stood before."""

    def __init__(self) -> None:
        self.ids = array("i")
        self._last: dict[int, int] = {}  # of two ids: the place after them
        self._before = array("i")  # for each place the one before it, after the same two ids

    def extend(self, ids: Iterable[int]) -> None:
        known, all_ids, last, before = len(self.ids), self.ids, self._last, self._before
        all_ids.extend(ids)
        for place in range(known, len(all_ids)):
            # The place after the last id is known once it is taken: an end never finds itself.
            if place < 2:
                before.append(-1)
                continue
            pair = all_ids[place - 2] << 32 | all_ids[place - 1]
            before.append(last.get(pair, -1))
            last[pair] = place

    def longest(self, tail: array[int]) -> tuple[int, int]:
        """(length, place after it) of the longest match of the end of `tail`, the latest of several. Length 0: none."""
        place = self._last.get(tail[-2] << 32 | tail[-1], -1)
        best, found = 0, -1
        for _ in range(_LOOKED_AT):
            if place < 0:
                break
            length = 2
            while length < len(tail) and length < place and self.ids[place - 1 - length] == tail[-1 - length]:
                length += 1
            if length > best:
                best, found = length, place
                if length == len(tail):
                    break
            place = self._before[place]
        return best, found


@dataclass(slots=True)
class _Reader:
    """What is looked up for one request.

    texts: of all samples of its prompt that are looked into, its own among them.
    right: by the length of the match, how many guesses were right in the mean; 0: of those of the small model.
    declined: times that the small model was not asked in a row.
    vain: times in a row that nothing was found that was worth a pass.
    open: (length of the match, place in the text, guesses) whose result is not known yet, run or not.
    """

    text: _Text
    texts: deque[_Text]
    num_read: int = 0
    right: dict[int, float] = field(default_factory=dict)
    open: tuple[int, int, list[int]] | None = None
    declined: int = 0
    vain: int = 0


class Guesser:
    """Guesses by what followed the same tokens before, or by a small model.

    Each match is also a forecast of how it will do: the guesses of a match are compared with what came, run or not, and
    where those of its length have not been worth a pass, the next ones are not run. The small model is asked now and
    then even where it was mostly wrong.
    """

    def __init__(self, draft: Drafts | None, *, always: bool) -> None:
        """always: whatever is found is run."""
        self._draft = draft
        self._always = always
        self._readers: dict[int, _Reader] = {}
        self._questions: OrderedDict[tuple[CacheKey, tuple[int, ...]], deque[_Text]] = OrderedDict()

    def keep_only(self, sequences: list[Sequence]) -> None:
        """Others are not asked for again, or begin again; what they said is kept for samples of the same prompt."""
        if len(self._readers) > 2 * len(sequences) + FEW_STREAMS:
            numbers = {sequence.request for sequence in sequences}
            self._readers = {number: reader for number, reader in self._readers.items() if number in numbers}

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        """At most `most` ids that may come next; none where they have not been worth a pass."""
        reader = self._readers.get(sequence.request) or self._new_reader(sequence)
        rests = 0 if self._always or self._draft else min(reader.vain // 2, _RESTS)
        if sequence.num_generated % (1 + rests):
            return []
        self._read(sequence, reader)
        text = reader.text
        if len(text.ids) < 2:
            return []
        self._score(reader)
        tail = text.ids[-LONGEST_MATCH:]
        length, place, source = 0, -1, text
        for each in reader.texts:
            found = each.longest(tail)
            if found[0] > length:
                (length, place), source = found, each
        guesses: list[int] = []
        mean = 0.0
        if length:
            mean = reader.right.get(length, _AT_FIRST[length > 3])
            guesses = source.ids[place : place + min(most, _AT_LEAST + int(2 * mean))].tolist()
        if self._draft is not None and (not guesses or mean < WORTH):
            drafted = self._drafted(self._draft, sequence, reader, min(most, DRAFTED))
            if drafted:
                guesses, length, mean, reader.open = drafted, 0, float(DRAFTED), None
        if reader.open is None and guesses:
            reader.open = (length, len(text.ids), guesses)
        if self._always or mean >= WORTH:
            reader.vain = 0
            return guesses
        reader.vain += 1
        return []

    def _drafted(self, draft: Drafts, sequence: Sequence, reader: _Reader, most: int) -> list[int]:
        """What the small model would say next; nothing where that is seldom right."""
        worth = self._always or reader.right.get(0, _AT_FIRST[1]) >= WORTH
        reader.declined = 0 if worth else (reader.declined + 1) % _TRY_AGAIN
        if reader.declined or len(sequence.tokens) + most >= draft.window:
            return []
        return list(draft.generate([sequence.tokens], SamplingParams(max_tokens=most, temperature=0.0))[0].ids)

    def _score(self, reader: _Reader) -> None:
        """The guesses whose result is known by now count for matches of their length."""
        if reader.open is None:
            return
        length, place, guesses = reader.open
        ids, right = reader.text.ids, 0
        came = min(len(guesses), len(ids) - place)
        while right < came and ids[place + right] == guesses[right]:
            right += 1
        if right < came or came == len(guesses):
            mean = reader.right.get(length, _AT_FIRST[length > 3])
            reader.right[length] = mean + _WEIGHT * (right - mean)
            reader.open = None

    def _read(self, sequence: Sequence, reader: _Reader) -> None:
        """What the sequence has said since it was looked at."""
        new = sequence.num_generated - reader.num_read
        context = len(sequence.tokens) - sequence.num_prompt
        if new > context:  # it was folded meanwhile, or is a fork
            said = [id for segment in sequence.segments for id in segment.ids] + sequence.tokens[sequence.num_prompt :]
            reader.text.extend(islice(said, len(said) - new, None))
        elif new:
            reader.text.extend(sequence.tokens[-new:])
        reader.num_read = sequence.num_generated

    def _new_reader(self, sequence: Sequence) -> _Reader:
        question = (sequence.key, sequence.prompt_ids)
        texts = self._questions.setdefault(question, deque(maxlen=_TEXTS))
        self._questions.move_to_end(question)
        if len(self._questions) > _QUESTIONS:
            self._questions.popitem(last=False)
        text = _Text()
        text.extend(sequence.prompt_ids)
        reader = self._readers[sequence.request] = _Reader(text, texts)
        texts.appendleft(text)
        return reader
