"""What each verb of the command line reads, prints and writes, on a tiny model that babbles."""

from __future__ import annotations

import base64
import io
import json
import re
import statistics
import struct
import zlib
from pathlib import Path

import pytest
import torch

from ponder.cli.main import main
from ponder.dialogue import ponder_template
from ponder.evaluate import held_out
from ponder.kernels import choose_kernel
from ponder.kernels.machine import machine
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.model.loss import torch_cross_entropy_
from ponder.model.transformer import Block
from ponder.tasks.gym import question_hash
from ponder.tasks.registry import load_task
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as training leaves it."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = ByteTokenizer()
    with atomic_folder(path) as temporary:
        write_model(tiny_model(0, vocab_size=tokenizer.vocab_size, max_positions=256), temporary)
        tokenizer.save(temporary)
    return path


class Run:
    """One call of `ponder`: its exit code and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.code = main([str(argument) for argument in arguments])
        self.out, self.err = capsys.readouterr()


def test_ask_prints_exactly_the_promised_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Run(capsys, "ask", "2+2?", "--model", folder, "--json", "--max-tokens", 24)
    answer = json.loads(ran.out)
    assert ran.code == 0
    assert list(answer) == ["answer", "reasoning", "stop_reason", "usage"]
    assert list(answer["usage"]) == ["prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens"]
    assert answer["stop_reason"] in {"end", "stop", "length"}
    assert 0 < answer["usage"]["reasoning_tokens"] <= answer["usage"]["completion_tokens"] <= 24


def test_ask_prints_the_answer_alone_unless_the_reasoning_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("ask", "2+2?", "--model", folder, "--max-tokens", 24)
    answer = json.loads(Run(capsys, *common, "--json").out)
    assert answer["reasoning"]
    assert Run(capsys, *common).out == answer["answer"] + "\n"
    assert Run(capsys, *common, "--show-reasoning").out == f"{answer['reasoning']}\n\n{answer['answer']}\n"


def test_ask_reads_the_question_from_standard_input(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--model", folder, "--max-tokens", 12)
    monkeypatch.setattr("sys.stdin", io.StringIO("2+2?\n"))
    assert Run(capsys, "ask", "-", *common).out == Run(capsys, "ask", "2+2?", *common).out


def test_int8_weights_are_refused_where_nothing_could_use_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, why in ((folder, "computes in float32"), ("http://127.0.0.1:9/v1", "for local models")):
        ran = Run(capsys, "ask", "2+2?", "--model", model, "--quantize", "int8")
        assert ran.code == 2
        assert why in ran.err


def test_int8_weights_answer(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_model(folder).to(torch.bfloat16)
    reason = choose_kernel(model.config, dict(model.named_parameters()), torch.bfloat16)
    if reason.kernel == "torch":
        pytest.skip(reason.reason)
    with atomic_folder(tmp_path / "half") as temporary:
        write_model(model, temporary)
        Tokenizer.load(folder).save(temporary)
    common = ("ask", "2+2?", "--model", tmp_path / "half", "--max-tokens", 12, "--json")
    ran = Run(capsys, *common, "--quantize", "int8")
    assert ran.code == 0
    assert 0 < json.loads(ran.out)["usage"]["completion_tokens"] <= 12


def tokens_of(page: Path) -> list[str]:
    """The tokens of a page's last context, spelled."""
    (body,) = re.findall(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    data = json.loads(body)
    ids = zlib.decompress(base64.b64decode(data["contexts"][-1]["ids"]["data"]))
    return [data["tokens"][str(id)] for (id,) in struct.iter_unpack("<i", ids)]


def test_inspect_writes_a_page_of_the_answer(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("--model", folder, "--max-tokens", 24)
    usage = json.loads(Run(capsys, "ask", "2+2?", *common, "--json").out)["usage"]
    page = tmp_path / "page.html"
    ran = Run(capsys, "inspect", "2+2?", *common, "-o", page)
    assert ran.code == 0
    assert re.fullmatch(rf"{re.escape(str(page))}: 0\.\d+ MB; open it in a browser\n", ran.out)
    tokens = tokens_of(page)
    assert "2+2?" in "".join(tokens)
    assert len(tokens) == usage["prompt_tokens"] + usage["completion_tokens"]


def test_inspect_goes_on_from_another_token(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("inspect", "2+2?", "--model", folder, "--max-tokens", 24, "-o")
    Run(capsys, *common, tmp_path / "a.html")
    first = tokens_of(tmp_path / "a.html")
    place, other = len(first) - 20, ByteTokenizer().encode("Z")[0]
    assert first[place] != "Z"
    assert Run(capsys, *common, tmp_path / "b.html", "--branch", f"{place}={other}").code == 0
    second = tokens_of(tmp_path / "b.html")
    assert second[: place + 1] == [*first[:place], "Z"]
    assert len(second) > place + 1
    refused = Run(capsys, *common, tmp_path / "c.html", "--branch", "0=5")
    assert refused.code == 2
    assert "branch at one of those" in refused.err


def test_inspect_reads_a_text_as_it_is(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert Run(capsys, "inspect", "The animal", "--text", "--model", folder, "-o", page).code == 0
    assert "".join(tokens_of(page)) == "The animal"


def test_effort_none_thinks_no_token(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Run(capsys, "ask", "2+2?", "--model", folder, "--effort", "none", "--max-tokens", 8, "--json")
    assert json.loads(ran.out)["usage"]["reasoning_tokens"] == 0


@pytest.mark.parametrize("cap", [0, 5, 300])
def test_thinking_is_capped_at_exactly_so_many_tokens(
    folder: Path, capsys: pytest.CaptureFixture[str], cap: int
) -> None:
    ran = Run(capsys, "ask", "2+2?", "--model", folder, "--thinking", cap, "--json")
    assert ran.code == 0
    thought = json.loads(ran.out)["usage"]["reasoning_tokens"]
    assert thought == cap or (cap == 300 and 5 < thought <= cap)  # more than the window of 256 holds


@pytest.mark.parametrize("verb", [("ask", "2+2?", "--model", "m"), ("eval", "m", "--suite", "mini")])
def test_how_long_to_think_is_said_once(capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]) -> None:
    for wrong, says in ((("--effort", "low", "--thinking", "4"), "not allowed"), (("--thinking=-1",), "at least 0")):
        with pytest.raises(SystemExit) as end:
            main([*verb, *wrong])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_the_answer_takes_the_form_that_is_asked_for_and_thinking_stays_free(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("ask", "2+2?", "--model", folder, "--json", "--max-tokens", 100, "--temperature", 1, "--seed", 3)
    answer = json.loads(Run(capsys, *common, "--regex", "x[0-9]{3}y").out)
    assert re.fullmatch("x[0-9]{3}y", answer["answer"])
    assert answer["stop_reason"] == "end"
    assert not re.fullmatch("x[0-9]{3}y", answer["reasoning"])
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["left", "right"]}')
    assert json.loads(json.loads(Run(capsys, *common, "--schema", schema).out)["answer"]) in ("left", "right")


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--regex", "("), "regular expression"), (("--schema", "missing.json"), "missing.json")],
)
def test_a_form_that_cannot_be_kept_is_misuse(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], says: str
) -> None:
    ran = Run(capsys, "ask", "2+2?", "--model", folder, *options)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err


def test_a_seed_repeats_a_sampled_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sampled(seed: int) -> str:
        common = ("ask", "2+2?", "--model", folder, "--temperature", 1, "--max-tokens", 24, "--show-reasoning")
        return Run(capsys, *common, "--seed", seed).out

    assert sampled(1) == sampled(1) != sampled(2)


def test_a_strategy_is_billed_for_all_its_samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("ask", "2+2?", "--model", folder, "--max-tokens", 8, "--json", "--strategy")
    one = json.loads(Run(capsys, *common, "consensus(samples=1, seed=1)").out)["usage"]
    three = json.loads(Run(capsys, *common, "consensus(samples=3, seed=1)").out)["usage"]
    assert three["prompt_tokens"] == one["prompt_tokens"]
    assert three["completion_tokens"] > one["completion_tokens"]
    nested = json.loads(Run(capsys, *common, "consensus(consensus(samples=3, until='all'), samples=1, seed=1)").out)
    assert nested["usage"]["completion_tokens"] == three["completion_tokens"]


def test_a_model_delegates_to_another_one_named_by_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    plan = '[{"name": "a", "task": "2 + 2", "expects": "integer"}]'
    said = lambda asked, _: "It is 4." if asked[-1].text.endswith("Answer it.") else plan  # noqa: E731
    with StubEndpoint(said) as large, StubEndpoint(lambda *_: "4") as small:
        text = f"delegate(workers='{small.url}#small')"
        ran = Run(capsys, "ask", "2+2?", "--model", f"{large.url}#large", "--strategy", text, "--json")
    found = json.loads(ran.out)
    assert found["answer"] == "It is 4."
    assert found["usage"]["completion_tokens"] == (large.counted + small.counted).completion_tokens


def test_ask_speaks_to_an_endpoint_by_its_address_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    with StubEndpoint([Say("four", "two and two")], models=("big", "small")) as stub:
        ran = Run(capsys, "ask", "2+2?", "--model", f"{stub.url}#small", "--effort", "low", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["answer"] == "four"
    assert stub.requests[0]["model"] == "small"
    assert stub.requests[0]["reasoning_effort"] == "low"


def test_a_dead_endpoint_is_a_failure_of_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubEndpoint([]) as stub:
        address = stub.url
    monkeypatch.setattr("asyncio.sleep", no_wait)
    ran = Run(capsys, "ask", "2+2?", "--model", f"{address}#small")
    assert ran.code == 1
    assert ran.err.count("\n") == 1


async def no_wait(seconds: float, result: object = None) -> None:
    """`asyncio.sleep` for a test that need not wait between retries."""


def test_an_answer_cut_off_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cut off" in Run(capsys, "ask", "2+2?", "--model", folder, "--max-tokens", 4).err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["ask", "2+2?", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["ask", "  ", "--model", "mini"], "empty"),
        (["ask", "2+2?", "--model", "FOLDER", "--strategy", "consesus(samples=3)"], "consensus"),
        (["ask", "2+2?", "--model", "FOLDER", "--temperature", "-1"], "temperature"),
        (["ask", "x" * 1000, "--model", "FOLDER"], "256"),
        (["chat", "--model", "FOLDER", "--strategy", "direct(effort"], "strategy"),
        (["train", "/nowhere/recipe.toml"], "/nowhere/recipe.toml"),
        (["eval", "FOLDER", "--suite", "minni"], "minni"),
        (["eval", "FOLDER", "--suite", "products", "--json", "/nowhere/report.json"], "/nowhere"),
        (["export", "/nowhere", "--out", "/tmp/unused"], "/nowhere"),
        (["bench", "FOLDER", "--new", "1"], "--new must be at least 2"),
        (["bench", "FOLDER", "--device", "nowhere"], "--device nowhere"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else value,
)
def test_misuse_names_the_culprit_and_exits_with_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    ran = Run(capsys, *(str(folder) if argument == "FOLDER" else argument for argument in arguments))
    assert ran.code == 2
    assert named in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""


def test_a_broken_checkpoint_is_a_failure_not_misuse(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[:100] if file.suffix == ".safetensors" else file.read_bytes()
        )
    ran = Run(capsys, "ask", "2+2?", "--model", tmp_path)
    assert ran.code == 1
    assert "model.safetensors" in ran.err
    assert ran.err.count("\n") == 1


def test_chat_accounts_for_what_is_kept_and_discarded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("hello\nand now?\n/effort none\nagain\n/reset\nhello\n/fly\n/quit\nnever\n")
    )
    lines = Run(capsys, "chat", "--model", folder, "--max-tokens", 16, "--hide-reasoning").out.splitlines()
    turns = [line for line in lines if line.startswith("turn ")]
    assert [turn.split(":")[0] for turn in turns] == ["turn 1", "turn 2", "turn 3", "turn 1"]
    assert "tokens of earlier thinking are discarded" not in turns[0]
    assert "tokens of earlier thinking are discarded" in turns[1]
    assert "thinking 0" in turns[2]
    assert "effort: none" in lines
    assert lines[-1].startswith("commands: ")


def test_chat_keeps_a_memory_for_the_next_chat(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ponder.think import Memory

    asking = ["chat", "--model", folder, "--max-tokens", 4, "--thinking", 0]
    monkeypatch.setattr("sys.stdin", io.StringIO("My dog is called Rex.\n"))
    assert Run(capsys, *asking, "--memory", tmp_path / "notes.db", "--user", "ann").code == 0
    with Memory(tmp_path / "notes.db") as memory:
        (found,) = memory.recall("ann", "my dog?")
    assert "My dog is called Rex." in found.note.text
    assert "add --memory FILE" in Run(capsys, *asking, "--user", "ann").err


def test_train_runs_a_recipe_into_the_folder_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, text, out = tmp_path / "recipe.toml", tmp_path / "text.txt", tmp_path / "out"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    recipe.write_text(
        '[run]\nfolder = "elsewhere"\nstages = ["tokenizer"]\n'
        f'[tokenizer]\nvocab_size = 512\ntext = [{{ source = "{text}" }}]\n'
    )
    ran = Run(capsys, "train", recipe, "--out", out, "--set", "tokenizer.vocab_size=352")
    assert ran.code == 0
    assert str(out) in ran.out
    assert "vocab_size = 352" in (out / "recipe.toml").read_text()
    again = Run(capsys, "train", recipe, "--out", out, "--set", "tokenizer.vocab_size=352")
    assert again.code == 2
    assert "--resume" in again.err
    unknown = Run(capsys, "train", recipe, "--out", tmp_path / "new", "--set", "tokenizer.vocab_sise=352")
    assert unknown.code == 2
    assert "vocab_size" in unknown.err


def test_eval_writes_the_numbers_the_tables_and_the_curve(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "md", "png")}
    ran = Run(
        capsys,
        *("eval", folder, "--suite", "spell_backward", "-n", 2, "--samples", 1, "--cap-curve", "0,4"),
        *("--effort", "minimal", "--json", files["json"], "--markdown", files["md"], "--plot", files["png"]),
    )
    assert ran.code == 0
    report = json.loads(files["json"].read_text())
    assert [row["mode"] for row in report["results"]] == ["direct", "thinking"]
    assert [point["cap"] for point in report["curves"][0]["points"]] == [0, 4]
    assert files["md"].read_text() == ran.out
    assert "| spell_backward | 4 | 0.000 |" in ran.out
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def test_eval_measures_the_modes_wanted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ("eval", folder, "--suite", "spell_backward", "-n", 1, "--effort", "minimal", "--samples", 2)
    file = tmp_path / "report.json"
    assert Run(capsys, *wanted, "--modes", "thinking,consensus", "--json", file).code == 0
    assert [row["mode"] for row in json.loads(file.read_text())["results"]] == ["thinking", "consensus@2"]
    text = "consensus(samples=2, max_tokens=3)"
    assert text in Run(capsys, *wanted, "--strategy", text).out
    curve = Run(capsys, *wanted, "--modes", "none", "--cap-curve", "0,2")
    assert curve.code == 0
    assert curve.out.startswith("## Accuracy against thinking")
    wrong = (("thinkng",), ("none",), ("consensus", "--samples", 1), ("thinking", "--pass-at", 2))
    for options, says in zip(
        wrong, ("'thinkng'", "--cap-curve", "at least 2 samples", "add it to --modes"), strict=True
    ):
        refused = Run(capsys, *wanted, "--modes", *options)
        assert refused.code == 2
        assert says in refused.err


def test_eval_tells_the_questions_of_every_training_apart(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = held_out(load_task("spell_backward"), 3)
    for number, problem in enumerate(problems[:2]):
        (tmp_path / f"{number}.bin").write_bytes(int(question_hash(problem.question), 16).to_bytes(8, "little"))
    trainings = [each for number in range(2) for each in ("--trained-on", tmp_path / f"{number}.bin")]
    wanted = ("eval", folder, "--suite", "spell_backward", "-n", 3, "--effort", "minimal", "--modes", "thinking")
    assert Run(capsys, *wanted, *trainings, "--json", tmp_path / "report.json").code == 0
    (row,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert row["seen_in_training"] == 2


def test_eval_tells_pass_at_k_of_the_consensus_s_samples(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("eval", folder, "--suite", "spell_backward", "-n", 2, "--effort", "minimal")
    files = tmp_path / "report.json", tmp_path / "pass.svg"
    ran = Run(capsys, *wanted, "--samples", 3, "--pass-at", "1,3", "--json", files[0], "--plot-pass-at", files[1])
    assert ran.code == 0
    *_, vote = json.loads(files[0].read_text())["results"]
    assert [point["k"] for point in vote["pass_at"]] == [1, 3]
    assert "| pass@1 | pass@3 |" in ran.out
    assert "<svg" in files[1].read_text()
    capped = Run(capsys, *wanted[:-2], "--samples", 2, "--thinking", 5, "--temperature", 0.5, "--json", files[0])
    assert capped.code == 0
    rows = json.loads(files[0].read_text())["results"]
    assert [row["reasoning_tokens"] for row in rows] == [0, 5, 10], "both samples of the vote"
    cold = Run(capsys, *wanted, "--samples", 3, "--temperature", 0)
    assert (cold.code, "temperature 0" in cold.err) == (2, True)
    for wrong in (("--samples", 3, "--pass-at", 4), ("--samples", 1, "--plot-pass-at", files[1])):
        refused = Run(capsys, *wanted, *wrong)
        assert refused.code == 2
        assert "samples" in refused.err


@pytest.mark.parametrize("caps", ["4,0", "a", "-1,2", ""])
def test_eval_refuses_caps_that_do_not_rise(folder: Path, capsys: pytest.CaptureFixture[str], caps: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["eval", str(folder), "--suite", "products", f"--cap-curve={caps}"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_export_writes_the_same_model_with_its_end_tokens_and_template(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exported"
    assert Run(capsys, "export", folder, "--to", "hf", "--out", out).code == 0
    ids = torch.arange(8)[None]
    assert torch.equal(load_model(out)(ids), load_model(folder)(ids))
    tokenizer = Tokenizer.load(out)
    assert tokenizer.chat_template == ponder_template()
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.control_id("<|end|>") in ends
    assert Run(capsys, "export", folder, "--out", out).code == 2
    assert Run(capsys, "export", folder, "--out", out, "--dtype", "bf16", "--force").code == 0
    assert next(load_model(out).parameters()).dtype is torch.bfloat16


def test_export_casts_the_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Run(capsys, "export", folder, "--out", tmp_path / "small", "--dtype", "bfloat16").code == 0
    assert next(load_model(tmp_path / "small").parameters()).dtype is torch.bfloat16


def test_bench_shows_the_kernel_and_every_rate(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.evaluate.speed.dram_read_bytes_per_second", lambda threads: 4e9)
    monkeypatch.setattr("ponder.evaluate.speed.matmul_flops", lambda: 1e12)
    out = tmp_path / "speed.json"
    ran = Run(capsys, *("bench", folder, "--streams", "1,3", "--prompt", 20, "--new", 5, "--rounds", 2, "--json", out))
    assert ran.code == 0
    numbers = json.loads(out.read_text())
    assert {name: len(rates) for name, rates in numbers["decode_tokens_per_second"].items()} == {"1": 2, "3": 2}
    assert all(rate > 0 for rate in numbers["prefill_tokens_per_second"])
    assert f"kernel: {numbers['kernel']}" in ran.out
    assert "head_dim 8" in ran.out  # why nothing faster runs this model
    assert f"DRAM read 4.0 GB/s, {machine().products} matrix product 1.00 TFLOP/s" in ran.out
    assert numbers["processor"] == str(machine())
    assert f"\nprocessor: {machine()}\n" in ran.out


@pytest.mark.parametrize("compiler", ["g++", None])
def test_bench_train_shows_what_steps_run_on_and_every_rate(
    compiler: str | None,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ponder.evaluate.training_speed.matmul_flops", lambda: 1e12)
    monkeypatch.setattr("ponder.model.loss.shutil.which", lambda name: compiler)
    block, losses = Block.forward, torch_cross_entropy_  # compiling takes seconds
    monkeypatch.setattr("ponder.model.transformer.compiled_block", lambda: block)
    monkeypatch.setattr("ponder.model.loss._compiled_cross_entropy", lambda: losses)
    out = tmp_path / "speed.json"
    ran = Run(capsys, "bench", folder, "--train", "--rounds", 2, "--json", out)
    assert ran.code == 0
    numbers = json.loads(out.read_text())
    expected = {"torch", "compiled"} if compiler else {"torch"}
    rates = numbers["training_tokens_per_second"]
    assert {name: len(found) for name, found in rates.items()} == dict.fromkeys(expected, 2)
    assert "not on the training kernels: head_dim 8" in ran.out
    assert all(f"training, {name}: {statistics.median(rates[name]):,.0f}" in ran.out for name in expected)
    assert (
        "--train does not go with --quantize int8" in Run(capsys, "bench", folder, "--train", "--quantize", "int8").err
    )


def test_lint_prints_places_rewrites_and_json_and_says_so_by_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Name a river.\nBe brief. I will tip you $20. Give a detailed answer.\n")
    ran = Run(capsys, "lint", file)
    assert ran.code == 1
    assert f"{file}:2:11: tip: 'I will tip you $20.'" in ran.out
    assert "against line 2, column 31: 'Give a detailed answer'" in ran.out
    found = json.loads(Run(capsys, "lint", file, "--json").out)["findings"]
    assert [each["rule"] for each in found] == ["contradiction", "tip"]
    assert Run(capsys, "lint", file, "--rewrite").out == "Name a river.\nGive a detailed answer.\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("Please reason step by step."))
    clean = Run(capsys, "lint", "-", "--target", "deepseek-r1")
    assert (clean.code, clean.out) == (0, "nothing found (advice for deepseek-r1)\n")
    assert Run(capsys, "lint", tmp_path / "none").code == 2


def test_eval_compares_two_wordings(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.txt", tmp_path / "after.txt"
    before.write_text("{question}")
    after.write_text("Please: {question}")
    asking = ["eval", folder, "--suite", "products", "-n", 2, "--thinking", 4, "--wordings", before, after]
    ran = Run(capsys, *asking)
    assert ran.code == 0
    assert "no measurable effect" in ran.out
    assert "--modes cannot be used beside --wordings" in Run(capsys, *asking, "--modes", "direct").err


def test_eval_compares_strategies_by_compute(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Path(__file__).parents[2] / "examples" / "initials.py"
    asked = ("eval", folder, "--suite", f"{task}:Initials", "-n", 2, "--strategy")
    found = tmp_path / "found.json"
    ran = Run(
        capsys, *asked, "direct,consensus(samples=2, until='all')", "--budget", "4,16", "--oracle", "--json", found
    )
    assert ran.code == 0
    points = json.loads(found.read_text())["points"]
    assert [(each["strategy"], each["budget"]) for each in points] == [
        (text, budget) for text in ("direct", "consensus(samples=2, until='all')") for budget in (4, 16)
    ]
    assert all(each["compute"] > each["tokens"] > 0 for each in points)
    assert "| direct | 4 |" in ran.out
    for wrong in (("--oracle",), ("--budget", "4", "--modes", "direct")):
        assert Run(capsys, *asked, "direct", *wrong).code == 2


def test_eval_audits_the_thinking(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "audit.json", tmp_path / "audit.md"
    asked = ("eval", folder, "--suite", "spell_backward", "-n", 1, "--thinking", 6, "--audit", "--planted", 0)
    page = tmp_path / "audit.html"
    ran = Run(capsys, *asked, "--json", files[0], "--markdown", files[1], "--page", page)
    assert ran.code == 0
    assert files[1].read_text() == ran.out
    assert "Accuracy with the thinking cut" in page.read_text()
    alone = Run(capsys, "eval", folder, "--suite", "spell_backward", "-n", 1, "--page", page)
    assert (alone.code, "--page needs --audit" in alone.err) == (2, True)
    (row,) = json.loads(files[0].read_text())["thinking"]
    assert (row["task"], row["n"], row["thinking_tokens"]) == ("spell_backward", 1, 5)
    assert [point["kept"] for point in row["cut"]["points"]] == [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]
    assert [each["mode"] for each in json.loads(files[0].read_text())["questions"]] == ["direct", "thinking"]
    refused = Run(capsys, *asked, "--cap-curve", "0")
    assert (refused.code, "--cap-curve cannot be used beside --audit" in refused.err) == (2, True)
