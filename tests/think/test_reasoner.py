"""The front door: ask, ask many, stream, converse; from plain code and inside a running loop."""

import asyncio
import subprocess
import sys
import time

import pytest

import ponder
from ponder.dialogue.messages import Message, ReasoningPolicy
from ponder.sampler.protocol import Truncation
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.think import Reasoner, consensus
from ponder.think.streaming import AnswerStream
from ponder.types import Budget, InvalidRequest, Phase, SamplerError


def echo(conversation, index):
    return Say(text=f"You said: {conversation[-1].text}", reasoning="I think so.")


def test_ask():
    answer = Reasoner(ScriptedSampler(echo)).ask("hello")
    assert answer.text == "You said: hello"
    assert answer.reasoning == "I think so."


def test_ask_takes_messages():
    reasoner = Reasoner(ScriptedSampler(echo))
    assert reasoner.ask([Message.system("Be kind."), Message.user("hi")]).text == "You said: hi"
    assert reasoner.ask(Message.user("hi")).text == "You said: hi"
    for nothing in ([], [3]):
        with pytest.raises(InvalidRequest, match="a question must be a text"):
            reasoner.ask(nothing)


def test_settings_reach_the_strategy():
    sampler = ScriptedSampler(echo)
    Reasoner(sampler).ask("x", effort="low", strategy="consensus(samples=3)", temperature=0.7, seed=4, max_tokens=50)
    (request,) = sampler.requests
    assert (request.n, request.params.temperature, request.params.seed, request.params.max_tokens) == (3, 0.7, 4, 50)


def test_a_cap_on_thinking_reaches_the_strategy():
    sampler = ScriptedSampler(echo)
    assert Reasoner(sampler).ask("x", thinking=2).usage.reasoning_tokens == 2
    with pytest.raises(InvalidRequest, match="effort and thinking both"):
        Reasoner(sampler).ask("x", thinking=2, effort="low")


def test_a_ready_made_strategy_and_the_settings_of_the_ask_go_together():
    sampler = ScriptedSampler(echo)
    answer = Reasoner(sampler).ask("x", strategy=consensus(samples=2, temperature=0.5), temperature=0.9, seed=1)
    assert len(answer.completions) == 2
    assert (sampler.requests[0].params.temperature, sampler.requests[0].params.seed) == (0.5, 1)


def test_unknown_settings_are_an_error():
    with pytest.raises(TypeError, match="efort"):
        Reasoner(ScriptedSampler(echo)).ask("x", efort="low")


def test_many_questions_keep_their_order_and_the_limit():
    class Watched(ScriptedSampler):
        under_way = most = 0

        async def stream(self, request, delivery):
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            async for event in super().stream(request, delivery):
                yield event
            self.under_way -= 1

    sampler = Watched(echo)
    answers = Reasoner(sampler).ask_many([str(n) for n in range(20)], concurrency=4)
    assert [answer.text for answer in answers] == [f"You said: {n}" for n in range(20)]
    assert sampler.most == 4


def test_many_questions_fail_as_one():
    with pytest.raises(SamplerError, match="no lines left"):
        Reasoner(ScriptedSampler(["only one"])).ask_many(["a", "b", "c"])


def test_one_text_is_not_many():
    with pytest.raises(InvalidRequest, match="use ask"):
        Reasoner(ScriptedSampler(echo)).ask_many("abc")
    with pytest.raises(InvalidRequest, match="concurrency"):
        Reasoner(ScriptedSampler(echo)).ask_many(["abc"], concurrency=0)


def test_everything_works_inside_a_running_loop():
    async def notebook_cell():
        reasoner = Reasoner(ScriptedSampler(echo))
        chat = reasoner.conversation()
        with reasoner.stream("c") as stream:
            pieces = [piece.text for piece in stream if piece.phase is Phase.ANSWER]
        return [reasoner.ask("a").text, chat.say("b").text, "".join(pieces), (await reasoner.ask_async("d")).text]

    assert asyncio.run(notebook_cell()) == [f"You said: {letter}" for letter in "abcd"]


def test_streamed_pieces_join_to_the_answer():
    told = []
    stream = Reasoner(ScriptedSampler(echo)).stream("hello", on_answer=told.append)
    pieces = list(stream)
    assert "".join(piece.text for piece in pieces if piece.phase is Phase.ANSWER) == stream.answer.text
    assert "".join(piece.text for piece in pieces if piece.phase is Phase.THINK) == stream.answer.reasoning
    assert told == [stream.answer]


def test_a_vote_is_streamed_when_it_is_decided():
    stream = Reasoner(ScriptedSampler(["1", "2", "2"])).stream("x", strategy="consensus(samples=3)")
    assert [piece.text for piece in stream] == ["2"]
    assert stream.answer.margin == pytest.approx(1 / 3)


def test_the_answer_can_be_read_without_iterating():
    assert Reasoner(ScriptedSampler(echo)).stream("hello").answer.text == "You said: hello"


def test_a_stream_that_is_left_stops_the_work():
    sampler = ScriptedSampler([Say(text="word " * 100, seconds=60)])
    began = time.monotonic()
    with Reasoner(sampler).stream("x") as stream:
        next(stream)
    assert time.monotonic() - began < 5
    with pytest.raises(RuntimeError, match="closed or failed"):
        _ = stream.answer


def test_an_error_reaches_the_reader_of_the_stream():
    stream = Reasoner(ScriptedSampler([])).stream("x")
    assert isinstance(stream, AnswerStream)
    with pytest.raises(SamplerError, match="no lines left"):
        list(stream)


# Conversations --------------------------------------------------------------------------------------------------------


def test_a_conversation_carries_answers_over_and_accounts_for_its_tokens():
    sampler = ScriptedSampler(echo)
    chat = Reasoner(sampler).conversation(system="Be kind.", effort="high")
    chat.say("one")
    assert not chat.account[0].reasoning_discarded, "still there until the next turn begins"
    chat.say("two")
    first, second = chat.account
    assert (first.turn, first.reasoning_tokens, first.answer_tokens) == (1, 4, 4)
    assert first.reasoning_discarded
    assert not second.reasoning_discarded
    assert second.prompt_tokens > first.prompt_tokens
    assert [message.role.value for message in sampler.requests[1].prompt] == ["system", "user", "assistant", "user"]
    assert sampler.requests[1].prompt[2].reasoning == "I think so.", "what is dropped is the renderer's affair"


def test_all_turns_discards_nothing():
    chat = Reasoner(ScriptedSampler(echo)).conversation(policy=ReasoningPolicy.ALL_TURNS, truncation=Truncation.AUTO)
    chat.say("one")
    chat.say("two", max_tokens=30)
    assert not any(turn.reasoning_discarded for turn in chat.account)


def test_a_turn_that_fails_leaves_the_conversation_as_it_was():
    chat = Reasoner(ScriptedSampler(["fine"])).conversation()
    chat.say("one")
    before = list(chat.messages)
    with pytest.raises(SamplerError):
        chat.say("two")
    assert chat.messages == before
    assert len(chat.account) == 1


def test_a_streamed_turn_counts_once_it_has_ended():
    chat = Reasoner(ScriptedSampler(echo)).conversation()
    with chat.stream("one") as stream:
        next(stream)
    assert chat.messages == []
    for _ in chat.stream("one"):
        pass
    assert [message.text for message in chat.messages] == ["one", "You said: one"]


def test_a_budget_holds_in_a_conversation_too():
    chat = Reasoner(ScriptedSampler(echo)).conversation(budget=Budget(tokens=5))
    assert chat.say("one").usage.completion_tokens <= 5


# ponder.load ----------------------------------------------------------------------------------------------------------


def test_load_an_endpoint():
    with StubEndpoint(["hi"]) as stub, ponder.load(stub.url, model="stub") as reasoner:
        assert reasoner.name == "stub"
        assert reasoner.ask("hello").text == "hi"
        assert "reasoning_effort" not in stub.requests[0]


def test_efforts_reach_an_endpoint_as_words():
    with StubEndpoint(["hi"]) as stub:
        ponder.load(stub.url).ask("hello", effort="low")
        assert stub.requests[0]["reasoning_effort"] == "low"


def test_load_says_what_there_is_not(tmp_path):
    with pytest.raises(InvalidRequest, match="there is no model 'no/such/folder'"):
        ponder.load("no/such/folder")
    with pytest.raises(InvalidRequest, match=r"no config\.json"):
        ponder.load(tmp_path)


def test_the_front_door_lists_its_names():
    assert "load" in dir(ponder)
    assert all(getattr(ponder, name) is not None for name in ponder.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = ponder.lod


@pytest.mark.parametrize(
    "module", ["ponder", "ponder.think", "ponder.tasks.registry", "ponder.evaluate", "ponder.front"]
)
def test_importing_does_not_load_torch(module):
    program = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_importing_ponder_is_quick():
    program = "import time; t = time.perf_counter(); import ponder; print(time.perf_counter() - t)"
    best = min(
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert best < 0.3


def test_the_bundled_model_is_asked_for_by_name_and_a_folder_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    with pytest.raises(InvalidRequest, match=r"^mini is not a model folder"):
        ponder.load("./mini")
