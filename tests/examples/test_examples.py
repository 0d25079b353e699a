"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from ponder.testing.scripted import ScriptedSampler
from ponder.think import Reasoner

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_bundled_model_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "ask.py"], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[0].startswith("3995 ")
    assert "votes: 3995: 4" in done.stdout
    assert "2 Started" in done.stdout


@pytest.mark.parametrize(("lines", "text", "samples"), [(["1", "1.0", "3"], "1", 2), (["1", "2", "3"], "3", 3)])
def test_a_strategy_of_one_s_own_thinks_for_longer_where_its_answers_disagree(lines, text, samples) -> None:
    sampler = ScriptedSampler(lines)
    answer = Reasoner(sampler).ask("x", strategy=f"{EXAMPLES / 'escalate.py'}:escalate(quick='minimal')")
    assert answer.text == text
    assert sum(request.n for request in sampler.requests) == samples
    efforts = [request.params.thinking.cap for request in sampler.requests]
    assert efforts == sorted(efforts)
