"""A whole evaluation: every task of a suite under every mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ponder.evaluate.measure import Result, measure
from ponder.evaluate.problems import held_out
from ponder.evaluate.report import Report, published_configs
from ponder.sampler.protocol import Sampler
from ponder.tasks.protocol import Task
from ponder.think import AskSettings, Strategy, consensus, direct, parse_strategy
from ponder.types import Effort, InvalidRequest, ThinkingLimits

MODES = ("direct", "thinking", "consensus")


def standard_modes(
    modes: Collection[str] | None = None,
    *,
    strategies: Sequence[str] = (),
    effort: Effort | str | None = None,
    thinking: ThinkingLimits | int | None = None,
    answer_room: int | None = None,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, Strategy]:
    """Greedy and direct, greedy and thinking, and (for `samples` above 1) the majority of that many thinking samples.

    modes: which of MODES; None: all.
    strategies: the texts of others, each a mode of that name, under the settings of `evaluate`.
    effort, thinking, answer_room: of the thinking ones, see `Ask`; high effort unless said.
    Raises InvalidRequest for another mode, for a consensus of one, and for two strategies of one name.
    """
    for mode in modes or ():
        if mode not in MODES:
            raise InvalidRequest(f"there is no mode {mode!r}: there are {', '.join(MODES)}")
    if samples == 1 and modes is not None and "consensus" in modes:
        raise InvalidRequest(
            "consensus needs at least 2 samples (got 1): raise samples, or leave the mode consensus out"
        )
    if effort is None and thinking is None:
        effort = Effort.HIGH
    thinks = direct(effort=effort, thinking=thinking, answer_room=answer_room, temperature=0.0)
    made: dict[str, Strategy] = {"direct": direct(effort=Effort.NONE, temperature=0.0), "thinking": thinks}
    if modes is not None:
        made = {name: mode for name, mode in made.items() if name in modes}
    if samples > 1 and (modes is None or "consensus" in modes):
        vote = consensus(
            samples=samples,
            until="all",  # pass@k and the votes of fewer samples are told from all of them
            effort=effort,
            thinking=thinking,
            answer_room=answer_room,
            temperature=temperature,
            seed=seed,
        )
        made[vote.name] = vote
    for text in strategies:
        if text in made:
            raise InvalidRequest(f"two modes are called {text!r}: leave one of them out")
        made[text] = parse_strategy(text)
    return made


def evaluate(
    sampler: Sampler,
    tasks: Sequence[Task],
    n: int = 500,
    *,
    modes: Mapping[str, Strategy] | None = None,
    start: int = 0,
    concurrency: int = 64,
    trained_on: frozenset[str] | None = None,
    progress: Callable[[Result], None] | None = None,
    pass_at: tuple[int, ...] | None = None,
    settings: AskSettings | None = None,
) -> Report:
    """`n` held-out problems of every task, under every mode (`standard_modes` unless given).

    start: number of the first held-out problem, to keep evaluations apart.
    progress: called with each result.
    pass_at: the k of which the report gives pass@k; None: doublings up to the number of samples.
    settings: of every ask; what a mode says of its samples itself holds before them.
    """
    results = []
    for task in tasks:
        problems = held_out(task, n, start=start)
        for name, mode in (standard_modes() if modes is None else modes).items():
            result = measure(
                sampler,
                task,
                problems,
                mode,
                name=name,
                concurrency=concurrency,
                trained_on=trained_on,
                settings=settings,
            )
            results.append(result)
            if progress is not None:
                progress(result)
    return Report(model=sampler.name, results=tuple(results), compared=published_configs(tasks), pass_at=pass_at)
