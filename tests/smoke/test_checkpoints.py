"""Small random checkpoints as transformers writes them, tuned in their own dialogue format: all weights, and LoRA."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ponder.dialogue import Message, load_format
from ponder.model.checkpoint import load_model
from ponder.model.lora import load_lora, merge_lora
from ponder.sampler.local import load_sampler
from ponder.sampler.protocol import Request
from ponder.sampler.threads import run_sync
from ponder.tokenizer import Tokenizer
from ponder.train import Outcome, run
from ponder.train.loop import state
from ponder.train.loop.display import read_metrics
from ponder.types import RecipeError, SamplingParams

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.smoke
FAMILIES = Path(__file__).parents[1] / "golden" / "families"
MODELS = {"llama": "llama3", "qwen2": "qwen3", "qwen3": "qwen3"}  # model_type: whose tokenizer and template
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
SFT = """
[run]
folder = "{home}/run"
stages = ["sft"]
threads = 1
device = "cpu"
compile = false
checkpoint_minutes = 0.0
[sft]
start = "{home}/base"
tokens = {tokens}
sequence = 256
batch = 2
chunk_steps = 2
direct = {direct}
mix = [{{ task = "products", max_level = 0.0 }}, {{ messages = "{home}/m.jsonl" }}]
[sft.optim]
lr = {lr}
"""
GRPO = """
[grpo]
start = "{home}/base"
steps = 3
sequence = 128
prompts = 2
samples = 4
max_tokens = 8
thinking = 0
mix = [{{ task = "{home}/letters.py:Letters" }}]
[grpo.optim]
lr = {lr}
"""
LORA = """
[{stage}.lora]
rank = 4
alpha = 8.0
targets = ["q_proj", "v_proj", "down_proj"]
"""


# In a separate file, which a grading child imports in no time; this module would bring transformers along.
LETTERS = '''
from ponder.tasks.protocol import Grade, Problem


class Letters:
    """Answers are better the more of them is small letters: something that random weights can be rewarded for."""

    name = "letters"

    def sample(self, rng, level):
        return Problem(task=self.name, question=f"Say something, {rng.randint(1, 99)}.", answer="")

    def grade(self, problem, answer):
        return Grade(score=sum(c.islower() for c in answer) / (len(answer) + 1))

    def same(self, a, b):
        return a == b
'''


def make(home: Path, kind: str, *, stage: str = "sft", lora: bool = False, steps: int = 6) -> Path:
    """A folder with a base model, some dialogues and a recipe; gives the recipe."""
    tokenizer = FAMILIES / MODELS[kind]
    vocab = -(-Tokenizer.load(tokenizer).vocab_size // 32) * 32
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocab, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.to(torch.bfloat16).save_pretrained(home / "base")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / file, home / "base")
    dialogue = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello, hello."}]
    (home / "letters.py").write_text(LETTERS)
    (home / "m.jsonl").write_text(json.dumps({"messages": dialogue}) + "\n")
    direct = 1.0 if kind == "llama" else 0.3  # Llama 3 has no words for thinking
    given = {"home": home, "tokens": steps * 512, "direct": direct, "lr": 0.05 if lora else 0.003, "stage": stage}
    recipe = (SFT + GRPO + (LORA if lora else "")).format(**given)
    (home / "r.toml").write_text(recipe)
    return home / "r.toml"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, dtype=torch.float32).named_parameters())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lora", [False, True])
def test_a_hugging_face_folder_is_tuned_in_its_own_format(tmp_path: Path, kind: str, lora: bool) -> None:
    result = run(make(tmp_path, kind, lora=lora))
    assert result.outcome is Outcome.COMPLETE
    assert result.model is not None
    losses = [record["loss"] for record in read_metrics(tmp_path / "run" / "sft" / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    name = load_format(Tokenizer.load(result.model)).name
    assert name == {"llama": "llama3"}.get(kind, "chatml")
    before, after = tensors(tmp_path / "base"), tensors(tmp_path / "run" / "sft" / "model")
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert changed == {"q_proj", "v_proj", "down_proj"} if lora else {"q_proj", "embed_tokens", "norm"} <= changed
    sampler = load_sampler(result.model)
    (answer,) = run_sync(
        sampler.sample(Request(prompt=(Message.user("Say hello."),), params=SamplingParams(max_tokens=8)))
    )
    run_sync(sampler.close())
    assert answer.usage.completion_tokens >= 1


def test_transformers_computes_what_was_trained(tmp_path: Path) -> None:
    result = run(make(tmp_path, "qwen3", lora=True))
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "sft" / "model")
        ids = torch.arange(40)[None]
        ours = load_model(tmp_path / "run" / "sft" / "model")
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)
        adapted = load_model(tmp_path / "base", dtype=torch.float32)
        load_lora(adapted, tmp_path / "run" / "sft" / "adapter")
        torch.testing.assert_close(adapted(ids), ours(ids), atol=1e-4, rtol=0)
        merge_lora(adapted)
        assert torch.equal(adapted(ids), ours(ids))
    assert result.model is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(result.model)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lora", [False, True])
def test_a_hugging_face_folder_learns_from_rewards(tmp_path: Path, kind: str, lora: bool) -> None:
    result = run(make(tmp_path, kind, stage="grpo", lora=lora), ["run.stages=['grpo']"])
    assert result.outcome is Outcome.COMPLETE
    records = read_metrics(tmp_path / "run" / "grpo" / "metrics.jsonl")
    assert len(records) == 3
    assert all(record["gradient"] > 0 for record in records)
    assert (tmp_path / "run" / "grpo" / "adapter").is_dir() == lora
    before, after = tensors(tmp_path / "base"), tensors(tmp_path / "run" / "grpo" / "model")
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert changed == {"q_proj", "v_proj", "down_proj"} if lora else {"q_proj", "embed_tokens", "norm"} <= changed
    if kind == "qwen3" and lora:
        assert max(record["engine_difference"] for record in records) < 0.1
    assert result.model is not None
    assert load_format(Tokenizer.load(result.model)).name == {"llama": "llama3"}.get(kind, "chatml")


def test_a_checkpoint_of_lora_holds_adapters_and_their_optimizer_state_alone(tmp_path: Path) -> None:
    run(make(tmp_path, "qwen3", lora=True))
    *_, newest = state.checkpoints(tmp_path / "run" / "sft" / "checkpoints")
    assert {path.name for path in newest.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    from safetensors import safe_open

    with safe_open(newest / "optimizer.safetensors", "pt") as stored:
        assert {key.partition("|")[0].rpartition(".")[2] for key in stored.keys()} == {"lora_A", "lora_B"}  # noqa: SIM118


def test_lora_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    def result(home: Path) -> dict[str, Any]:
        sft = home / "run" / "sft"
        return {
            name: (sft / name).read_bytes() for name in ("adapter/adapter_model.safetensors", "model/model.safetensors")
        }

    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    run(make(tmp_path / "whole", "qwen3", lora=True))
    recipe = make(tmp_path / "parts", "qwen3", lora=True)
    run(recipe)
    sft = tmp_path / "parts" / "run" / "sft"
    (newest_but_one, newest) = state.checkpoints(sft / "checkpoints")
    shutil.rmtree(newest)
    for name in ("adapter", "model"):
        shutil.rmtree(sft / name)
    (sft / "done.json").unlink()
    assert newest_but_one.name == "step_00000005"
    assert run(recipe, resume=True).outcome is Outcome.COMPLETE
    assert result(tmp_path / "parts") == result(tmp_path / "whole")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.lora.targets=['q_projj']", r"sft\.lora\.targets must be among q_proj.*q_projj"),
        ("sft.lora.rank=-1", r"sft\.lora\.rank"),
        ("sft.start=random", r"sft\.lora needs a trained model"),
    ],
)
def test_what_lora_cannot_do_is_refused_before_anything_runs(tmp_path: Path, override: str, message: str) -> None:
    recipe = make(tmp_path, "qwen3", lora=True)
    with pytest.raises(RecipeError, match=message):
        run(recipe, [override])
    assert not (tmp_path / "run").exists()
