"""Several answers, and the one that most of them agree on (self-consistency, arXiv 2203.11171)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.graders import same_value
from ponder.think.collect import Collected, Sampling, collect
from ponder.think.direct import answer_of, unfinished
from ponder.think.protocol import Question, Same, check_budget
from ponder.types import Answer, Budget, Effort, InvalidRequest, StopReason, ThinkingLimits, Usage


@dataclass(frozen=True, slots=True)
class Camp:
    """The samples that agree, by index; the first of them speaks for all."""

    members: tuple[int, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Consensus:
    """See `consensus`."""

    samples: int
    sampling: Sampling

    @property
    def name(self) -> str:
        return f"consensus@{self.samples}"

    async def __call__(self, question: Question, sampler: Sampler, budget: Budget) -> Answer:
        check_budget(budget)
        n = min(each for each in (self.samples, budget.samples, budget.tokens) if each is not None)
        request = self.sampling.request(question, sampler, budget, n)
        collected = await collect(sampler, request, budget.seconds)
        return elect(collected, question.same or same_value, asked=n)


def consensus(
    samples: int = 8,
    *,
    effort: Effort | str | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    max_tokens: int | None = None,
    thinking: ThinkingLimits | int | None = None,
    answer_room: int | None = None,
) -> Consensus:
    """The majority of `samples` answers. What is empty or was cut off does not vote; a tie goes to the earliest sample.

    effort, thinking, answer_room: of each sample, see `direct`.
    The trace holds `votes` (answer and count, largest first), `margin` ((first - second) / voters), `samples` finished
    and `asked`, `truncated`, and the finished `completions` themselves, in the order of their indices.
    """
    if samples < 1:
        raise InvalidRequest(f"consensus needs at least 1 sample, not {samples}")
    if temperature == 0 and samples > 1:
        raise InvalidRequest("consensus at temperature 0 asks for the same answer again and again: raise it")
    return Consensus(
        samples,
        Sampling.of(
            effort, thinking, answer_room=answer_room, max_tokens=max_tokens, temperature=temperature, seed=seed
        ),
    )


def camps(completions: Mapping[int, Completion], same: Same) -> list[Camp]:
    """Voters grouped by `same` with the first of a group, largest group first, ties by earliest sample."""
    groups: list[list[int]] = []
    for index in sorted(completions):
        for group in groups:
            if same(completions[group[0]].text, completions[index].text):
                group.append(index)
                break
        else:
            groups.append([index])
    groups.sort(key=lambda group: (-len(group), group[0]))
    return [Camp(tuple(group), completions[group[0]].text) for group in groups]


def votes(completion: Completion) -> bool:
    """Whether a completion came to an answer."""
    return completion.stop_reason in (StopReason.END, StopReason.STOP) and bool(completion.text.strip())


def elect(collected: Collected, same: Same, asked: int) -> Answer:
    """The answer of the largest camp, billed for every finished sample."""
    finished = collected.finished
    if not finished:
        return unfinished(collected)
    voters = {index: each for index, each in finished.items() if votes(each)}
    ranked = camps(voters, same)
    sizes = [len(camp.members) for camp in ranked] + [0, 0]
    chosen = ranked[0].members[0] if ranked else min(finished)
    trace: dict[str, object] = {
        "votes": [{"answer": camp.answer, "count": len(camp.members)} for camp in ranked],
        "margin": (sizes[0] - sizes[1]) / len(voters) if voters else 0.0,
        "samples": len(finished),
        "asked": asked,
        "completions": tuple(finished[index] for index in sorted(finished)),
        "truncated": sum(each.stop_reason is StopReason.LENGTH for each in finished.values()),
    }
    if collected.cut is not None:
        trace |= {"cut": collected.cut, "unbilled": asked - len(finished)}
    answer = answer_of(finished[chosen], **trace)
    bill = sum((each.usage for each in finished.values()), Usage())
    return replace(answer, usage=bill)
