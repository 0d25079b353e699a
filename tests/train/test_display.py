"""What a person sees of a run: durations, the progress line, neighbours, the plot; and the worker that stays light."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ponder.dialogue import CONTROL_TOKENS
from ponder.testing.tiny import tiny_model
from ponder.tokenizer import Tokenizer
from ponder.train.algorithms.pretrain import as_text, nearest
from ponder.train.loop.display import Display, MetricsLog, duration, plot_metrics, read_metrics


def test_durations_are_short_to_read() -> None:
    assert [duration(seconds) for seconds in (9.4, 75, 3661, -1)] == ["9s", "1m15s", "1h01m", "0s"]


def test_the_line_has_what_a_person_asks_for_and_is_not_repeated_in_a_log() -> None:
    stream = io.StringIO()
    display = Display("sft", 200, stream)
    for step in (1, 2, 200):
        display.update(step=step, headline="loss 0.5000", lr=1e-3, rate=12_345.0, seconds_left=75.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert re.search(r"sft +200/200 +100% +loss 0\.5000 +lr 1\.0e-03 +12\.3k tokens/s +1m15s left", lines[1])


def test_a_terminal_that_was_closed_does_not_end_the_training() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.MonkeyPatch.context() as patch, os.fdopen(write, "w") as stream:
        patch.setattr(sys, "stderr", stream)
        display = Display("sft", 10)
        display.say("sft: cpu, torch")
        display.update(step=10, headline="loss 0.5000", lr=1e-3, rate=12_345.0, seconds_left=0.0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_metrics_reopened_forget_what_lies_beyond_the_step(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl", step=0)
    for step in (1, 2, 3):
        metrics.write({"step": step, "loss": float(step)})
    metrics.close()
    again = MetricsLog(tmp_path / "metrics.jsonl", step=2)
    again.close()
    assert [record["loss"] for record in again.kept] == [1.0, 2.0]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl", step=0)
    for step in range(1, 30):
        metrics.write({"step": step, "tokens": 100 * step, "loss": 1 / step, "solved": step / 30})
    metrics.close()
    plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_neighbours_are_the_nearest_by_cosine_and_never_the_token_itself() -> None:
    texts = ["the cat and the dog and the bird sat with the cat and the dog"] * 20
    tokenizer = Tokenizer.train(texts, 352, tuple(CONTROL_TOKENS))
    model = tiny_model(vocab_size=352)
    words = [i for i in range(352) if tokenizer.decode([i]) in (" cat", " dog")]
    assert len(words) == 2
    with torch.no_grad():
        rows = model.model.embed_tokens.weight
        rows[words[0]] = 3 * rows[words[1]]
    found = dict(nearest(model, tokenizer, words=10, around=2))
    (best, cosine), _ = found[" cat"]
    assert best == " dog"
    assert abs(cosine - 1) < 1e-5
    assert "' cat': ' dog' 1.00" in as_text(list(found.items()))


def test_the_worker_does_not_load_torch() -> None:
    code = "import sys, ponder.train.data.feed; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_metrics_reopened_are_never_less_than_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 6)))

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ponder.train.loop.display.json.dumps", killed)
        with pytest.raises(KeyboardInterrupt):
            MetricsLog(path, step=3)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4, 5]
    MetricsLog(path, step=3).close()
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]
