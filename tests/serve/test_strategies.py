"""Strategies behind the API: named by a request, or by a model's own name; and what admission asks of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from child import save_tiny
from live import serving

from ponder.cli.main import build_parser
from ponder.cli.serve import _parse, load_models
from ponder.sampler.protocol import AT_ONCE, Delivery, Request, Sampler, Streamed
from ponder.serve import Served, Settings
from ponder.serve.answering import answer_pieces, served_ask
from ponder.serve.models import Models
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import consensus, delegate
from ponder.think.ask import Ask
from ponder.think.events import Answer, Answered, Event
from ponder.think.ledger import Ledger
from ponder.think.samples import Samples
from ponder.think.strategies.delegate import Delegate
from ponder.think.strategy import Demand
from ponder.types import InvalidRequest

ASKED: list[Any] = [{"role": "user", "content": "2+2?"}]
FOUR = Say("Four.", reasoning="Two and two.")
MINE = """
from ponder.think import consensus

def make(samples: int = 3):
    return consensus(samples=samples)
"""

CHECK = """
from ponder.tasks.protocol import Grade

def check(answer):
    return Grade(score=float(answer == "Four."))
"""


def loaded(*texts: str) -> dict[str, Served]:
    """What `ponder serve` loads for these arguments, by name."""
    parsed = build_parser().parse_args(["serve", *texts])
    return {each.name: each for each in load_models([*parsed.models, *parsed.model], parsed.lora, parsed.quantize)}


# Names on the command line --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_a_model_with_a_strategy_shares_the_engine_of_the_model_under_it(folder: Path) -> None:
    text = "consensus(samples=3)"
    models = loaded(
        f"tiny={folder}", f"deep={folder}:{text}", "--model", f"more=tiny:{text}", "--model=one=tiny:direct"
    )
    assert list(models) == ["tiny", "deep", "more", "one"]
    assert {id(each.sampler) for each in models.values()} == {id(models["tiny"].sampler)}
    assert [each.strategy and each.strategy.name for each in models.values()] == [
        None,
        "consensus@3",
        "consensus@3",
        "direct",
    ]
    assert [each.parent for each in models.values()] == [None, "tiny", "tiny", "tiny"]
    assert len({each.fingerprint for each in models.values()}) == 3
    assert list(Models(models.values(), Settings()).admissions) == ["tiny"], "one engine has one queue"


def test_a_model_may_be_served_under_its_strategy_alone(folder: Path) -> None:
    (deep,) = loaded("--model", f"deep={folder}:consensus(samples=2)").values()
    assert deep.strategy is not None
    assert deep.parent is None


def test_a_function_of_a_file_makes_a_strategy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    models = loaded(f"a={folder}:{tmp_path}/mine.py:make", f"b={folder}:{tmp_path}/mine.py:make(samples=5)")
    assert [each.strategy.name for each in models.values() if each.strategy] == ["consensus@3", "consensus@5"]
    assert models["a"].sampler is models["b"].sampler


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("mini", ("", "mini", "")),
        ("deep=mini:consensus(samples=8)", ("deep", "mini", "consensus(samples=8)")),
        ("deep=mini:consensus", ("deep", "mini", "consensus")),
        ("mine=mini:path/mine.py:make", ("mine", "mini", "path/mine.py:make")),
        ("http://host:8000/v1#qwen3:8b", ("", "http://host:8000/v1#qwen3:8b", "")),
        ("x=http://host:8000/v1#llama3:latest", ("x", "http://host:8000/v1#llama3:latest", "")),
        ("x=vllm+http://host:8000/v1", ("x", "vllm+http://host:8000/v1", "")),
        ("x=http://host:8000/v1?a=b#m", ("x", "http://host:8000/v1?a=b#m", "")),
        ("x=http://h/v1#qwen3:8b:consensus(samples=4)", ("x", "http://h/v1#qwen3:8b", "consensus(samples=4)")),
        ("x=http://host:8000/v1#m:consensus", ("x", "http://host:8000/v1#m", "consensus")),
        ("x=http://h/v1#m:a/mine.py:make(n=1)", ("x", "http://h/v1#m", "a/mine.py:make(n=1)")),
        ("x=http://h/v1#m:concensus(samples=2)", ("x", "http://h/v1#m", "concensus(samples=2)")),
    ],
)  # fmt: skip
def test_a_name_a_model_and_a_strategy_are_told_apart(text: str, parsed: tuple[str, str, str]) -> None:
    assert _parse(text) == parsed


def test_a_strategy_that_is_wrong_is_refused_before_anything_is_loaded() -> None:
    for text, why in (
        ("mini:consensus(samples=2)", "needs a name"),
        ("deep=nowhere:concensus", "did you mean 'consensus'"),
        ("deep=nowhere:consensus(sample=2)", "did you mean 'samples'"),
        ("deep=http://127.0.0.1:1/v1#m:concensus(samples=2)", "did you mean 'consensus'"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            loaded(text)


def test_strategies_nest_behind_a_name_with_a_verifier_of_the_operator_s(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CHECK)
    refined = f"refine(samples=2, verifier='{tmp_path}/check.py:check')"
    (deep,) = loaded(f"deep={folder}:consensus({refined}, samples=3)").values()
    assert deep.strategy is not None
    demand = deep.strategy.demand(Ask.of("x"))
    assert (deep.strategy.name, demand.in_all, demand.depth) == ("consensus@3", 6, 2)


# Requests -------------------------------------------------------------------------------------------------------------


def said(*, script: Any = lambda conversation, index: FOUR, strategy: Any = None) -> list[Served]:
    sampler = ScriptedSampler(script)
    deep = strategy or consensus(samples=3)
    return [Served(name="plain", sampler=sampler), Served(name="deep", sampler=sampler, strategy=deep, parent="plain")]


def test_a_client_that_knows_only_model_names_uses_a_strategy() -> None:
    with serving(said()) as live, live.client() as client:
        listed = {each.id: each for each in client.models.list()}
        answer = client.chat.completions.create(model="deep", messages=ASKED, temperature=0)
        chunks = list(client.chat.completions.create(model="deep", messages=ASKED, stream=True))
        response = client.responses.create(model="deep", input="2+2?")
        kept = client.responses.create(model="deep", input="and?", previous_response_id=response.id)
        plain = client.chat.completions.create(model="plain", messages=ASKED)
    assert listed["deep"].parent == "plain"
    assert answer.model == response.model == "deep"
    assert answer.choices[0].message.content == response.output_text == kept.output_text == "Four."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Four."
    assert answer.usage.completion_tokens == 3 * plain.usage.completion_tokens
    assert response.usage.output_tokens == 3 * plain.usage.completion_tokens


def test_a_strategy_beside_that_of_the_model_is_refused_by_name() -> None:
    with serving(said()) as live, live.client() as client:
        chat, responses = client.chat.completions, client.responses
        for call, param in (
            (lambda: chat.create(model="deep", messages=ASKED, extra_body={"strategy": "direct"}), "strategy"),
            (lambda: responses.create(model="deep", input="x", extra_body={"strategy": "direct"}), "strategy"),
            (lambda: responses.create(model="deep", input="x", reasoning={"mode": "pro"}), "reasoning.mode"),
            (lambda: chat.create(model="deep", messages=ASKED, n=2), "n"),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                call()
            assert refused.value.param == param


def test_a_request_names_strategies_of_the_package_and_never_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{MINE}")
    with serving(said()) as live, live.client() as client:
        for text in (f"{tmp_path}/mine.py:make", f"{tmp_path}/mine.py:make(samples=2)", "os:getcwd", "nonsense"):
            with pytest.raises(openai.BadRequestError) as refused:
                client.chat.completions.create(model="plain", messages=ASKED, extra_body={"strategy": text})
            assert refused.value.param == "strategy"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("setting", ["deadline=1e12", "tenant='ben'", "n=500", "truncation='auto'", "next_turn='text'"])
def test_the_text_of_a_strategy_sets_nothing_that_is_the_servers(setting: str) -> None:
    with (
        serving(said()) as live,
        live.client() as client,
        pytest.raises(openai.BadRequestError, match="has no argument"),
    ):
        client.chat.completions.create(model="plain", messages=ASKED, extra_body={"strategy": f"direct({setting})"})


def test_more_samples_than_the_server_allows_are_refused() -> None:
    with serving(said(), Settings(samples=4)) as live, live.client() as client:
        with pytest.raises(openai.BadRequestError, match="this server allows 4"):
            client.chat.completions.create(
                model="plain", messages=ASKED, extra_body={"strategy": "consensus(samples=5)"}
            )
        extra = {"strategy": "consensus(samples=4, temperature=0.5)"}
        assert client.chat.completions.create(model="plain", messages=ASKED, extra_body=extra).choices


def test_strategies_nest_in_a_request_and_all_of_it_is_billed() -> None:
    with serving(said(), Settings(samples=8)) as live, live.client() as client:
        plain = client.chat.completions.create(model="plain", messages=ASKED)

        def ask(text: str) -> Any:
            return client.chat.completions.create(model="plain", messages=ASKED, extra_body={"strategy": text})

        answer = ask("consensus(consensus(samples=2, until='all'), samples=3, until='all')")
        assert answer.choices[0].message.content == "Four."
        assert answer.usage.completion_tokens == 6 * plain.usage.completion_tokens
        for text, why in (
            ("consensus(consensus(samples=3), samples=3)", "this server allows 8"),
            ("consensus(refine(samples=2), samples=2)", "no verifier"),
            ("refine(verifier='os:abort')", "server's machine"),
        ):
            with pytest.raises(openai.BadRequestError, match=why):
                ask(text)


PLAN = '[{"name": "a", "task": "2 + 1"}, {"name": "b", "task": "{a} + 1"}]'


def planned() -> list[Served]:
    """A model that plans, one that adds, and one that always hands its work to that one."""
    large = ScriptedSampler(
        lambda asked, _: asked[-1].text.split(" = ")[-1][0] if asked[-1].text.endswith("Answer it.") else PLAN,
        name="large",
    )
    small = ScriptedSampler(
        lambda asked, _: str(sum(map(int, asked[-1].text.split("\n")[0].split(" + ")))), name="small"
    )
    deep = Served(name="deep", sampler=large, strategy=delegate(workers=small))
    return [Served(name="large", sampler=large), Served(name="small", sampler=small), deep]


def test_a_request_delegates_to_another_model_that_is_served_here() -> None:
    models = planned()
    with serving(models) as live, live.client() as client:
        create = client.chat.completions.create

        def ask(text: str, **settings: Any) -> Any:
            return create(model="large", messages=ASKED, extra_body={"strategy": text}, **settings)

        answer = ask("delegate(workers='small')")
        counted = [model.sampler.counted.completion_tokens for model in models[:2]]  # type: ignore[attr-defined]
        assert answer.choices[0].message.content == "4"
        assert answer.usage.completion_tokens == sum(counted)
        *_, bill = ask("delegate(workers='small')", stream=True, stream_options={"include_usage": True})
        assert bill.usage == answer.usage
        assert create(model="deep", messages=ASKED).usage == answer.usage
        for text in ("delegate(workers='deep')", "delegate(workers=4)"):
            with pytest.raises(openai.BadRequestError):
                ask(text)
        for text in ("delegate(workers='/etc')", "delegate(workers='http://127.0.0.1:1/v1#m')"):
            with pytest.raises(openai.NotFoundError, match="there is no model"):
                ask(text)


def test_a_name_that_delegates_names_its_workers_as_they_are_served(folder: Path) -> None:
    models = loaded(f"large={folder}", f"small={folder}", "deep=large:delegate(workers='small', plan='lines')")
    strategy = models["deep"].strategy
    assert isinstance(strategy, Delegate)
    assert strategy.workers is models["small"].sampler


def test_what_stands_beside_a_strategy_holds_for_its_samples() -> None:
    models = said()
    with serving(models) as live, live.client() as client:
        extra = {"strategy": "consensus(samples=2)", "top_k": 7}
        client.chat.completions.create(
            model="plain", messages=ASKED, top_p=0.5, max_tokens=9, stop=["!"], extra_body=extra
        )
    heard = models[0].sampler.requests[-1]  # type: ignore[attr-defined]
    assert (heard.n, heard.params.top_p, heard.params.top_k, heard.params.max_tokens) == (2, 0.5, 7, 9)
    assert heard.stop == ("!",)


# Admission ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InTurns:
    """Asks `rounds` times for two samples, and says how many that are, without an attribute that would."""

    rounds: int
    name: str = "in turns"

    def demand(self, ask: Ask) -> Demand:
        return Demand(2, 2 * self.rounds)

    async def stream(self, ask: Ask, sampler: Sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        for _ in range(self.rounds):
            samples = Samples(ask, sampler, ledger, 2, temperature=1.0)
            async for event in samples:
                yield event
        last = samples.completions[-1]
        yield Answered(Answer(message=last.message, completions=samples.completions))


class Gated(ScriptedSampler):
    """Says nothing before it may."""

    open = False

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        while not self.open:
            await asyncio.sleep(0.001)
        async for item in super().stream(request, delivery):
            yield item


def test_a_strategy_takes_as_many_places_as_it_declares() -> None:
    sampler = Gated(lambda conversation, index: FOUR)
    with serving([Served(name="deep", sampler=sampler, strategy=InTurns(3))]) as live, live.client() as client:
        admission = live.state.models.admissions["deep"]
        asking = threading.Thread(target=lambda: client.chat.completions.create(model="deep", messages=ASKED))
        asking.start()
        while not admission.num_running:
            time.sleep(0.001)
        assert admission._running - admission._free == 2
        sampler.open = True
        asking.join(60)
        assert admission._free == admission._running
    assert len(sampler.requests) == 3


@pytest.mark.parametrize("strategy", [None, InTurns(2), consensus(samples=2)], ids=["direct", "in turns", "consensus"])
def test_the_place_is_left_with_the_last_sample_however_slowly_the_answer_is_read(strategy: Any) -> None:
    async def run() -> None:
        served = Served(name="tiny", sampler=tiny_sampler(max_batch=2), strategy=strategy)
        models = Models([served], Settings())
        ask = Ask.of("2+2?", max_tokens=20, temperature=1.0)
        pieces = answer_pieces(models, served_ask(ask, served, "anna", Settings()))
        await anext(pieces)
        began = time.monotonic()
        while not models.admissions["tiny"].idle:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.005)
        assert [piece async for piece in pieces]
        await models.close()

    asyncio.run(run())


def test_a_client_that_leaves_ends_all_samples_of_a_strategy() -> None:
    sampler = tiny_sampler(max_batch=4, max_positions=4096)
    with serving([Served(name="deep", sampler=sampler, strategy=consensus(samples=4))]) as live:
        away = {str(id): -100 for id in sampler.tokenizer.control.values()}
        with live.client(timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="deep", messages=ASKED, max_tokens=4000, logit_bias=away)
        began = time.monotonic()
        while sampler.num_generations or not live.state.idle:
            assert time.monotonic() - began < 60
            time.sleep(0.01)
