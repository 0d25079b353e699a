"""What the tests of several workers run: `python several.py FOLDER CASE…`, alone or under torchrun.

Each case trains into FOLDER/CASE, from FOLDER/start. A case that has been interrupted goes on. What a worker raised is
written down at FOLDER/CASE.RANK.txt.
"""

import json
import signal
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from ponder.model.checkpoint import write_model
from ponder.model.transformer import Transformer
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.algorithms.pretrain import PretrainRecipe
from ponder.train.loop import state
from ponder.train.loop.learner import NextToken
from ponder.train.loop.optim import Optim
from ponder.train.loop.shard import load_shards, shard
from ponder.train.loop.stage import model_config
from ponder.train.loop.world import joined_world, whole, world
from ponder.train.pipeline import load_recipe, run
from ponder.types import DataError

HERE = Path(__file__).parent
START = """
[run]
folder = "{folder}/{case}"
stages = ["{stage}"]
threads = 1
device = "cpu"
compile = false
precision = "fp32"
parallel = "{parallel}"
checkpoint_minutes = 60.0
[model]
size = 32
layers = 2
"""
TEXT = 'text = [{{ source = "{here}/../../recipes/smoke/text/clock.md" }}]'
DRAWN = """
start = "{folder}/start"
steps = 3
sequence = 64
prompts = 3
samples = 4
max_tokens = 10
thinking = 0
batch = 2
optim = {{ lr = 0.003, weight_decay = 0.0 }}
mix = [{{ task = "{here}/even.py:Even" }}]
"""
JUDGED = """
start = "{folder}/start"
preferences = "{folder}/judged.jsonl"
sequence = 64
batch = 2
rankings = 6
held_out = 0.2
optim = {{ lr = 0.003 }}
"""
# Sizes that neither 2 nor 3 workers divide evenly.
PRETRAIN = f"""
[pretrain]
sequence = 32
batch = 5
accumulate = 2
optim = {{{{ lr = 0.001 }}}}
tokens = 16_000
held_out = 0.1
eval_every = 20
neighbours = 2
{TEXT}
"""
CASES = {
    "pretrain": PRETRAIN,
    "muon": PRETRAIN.replace("tokens = 16_000", "tokens = 320").replace(
        "lr =", 'name = "muon", muon_precision = "fp32", lr ='
    ),
    "sft": """
[sft]
start = "random"
sequence = 160
batch = 5
tokens = 2_400
chunk_steps = 3
mix = [{{ task = "products", max_level = 0.0 }}]
""",
    "reward": f"[reward]\n{JUDGED}",
    "dpo": f"[dpo]\n{JUDGED}",
    "grpo": f"[grpo]\n{DRAWN}",
    "ppo": f"[ppo]\ncritic_alone = 1\n{DRAWN}",
}
CASES["stopped"] = CASES["broken"] = CASES["short"] = PRETRAIN.replace("16_000", "3_200")
DIVIDED = {
    "divided": "pretrain",
    "divided_sft": "sft",
    "divided_dpo": "dpo",
    "divided_short": "short",
    "divided_grpo": "grpo",
}
CASES |= {name: CASES[case] for name, case in DIVIDED.items()}
STAGES = dict.fromkeys(("muon", "stopped", "broken", "short", "divided", "divided_short"), "pretrain")
STAGES |= {"divided_sft": "sft", "divided_dpo": "dpo", "divided_grpo": "grpo"}


class Disturbed(NextToken):
    """In the third step, the last worker is told to stop, or finds its data broken."""

    case = ""
    steps = 0
    ordinary = NextToken.losses

    def losses(self, *arguments: Any) -> Iterator[Any]:
        Disturbed.steps += 1
        if Disturbed.steps == 3 and 0 < world().rank == world().size - 1:
            if Disturbed.case == "broken":
                raise DataError("the data of this worker is broken")
            signal.raise_signal(signal.SIGTERM)
        return Disturbed.ordinary(self, *arguments)


def prepare(folder: Path) -> None:
    """The start model, its tokenizer, and judgements."""
    start = folder / "start"
    start.mkdir(parents=True)
    write_model(tiny_model(), start)
    ByteTokenizer().save(start)
    lines = [{"prompt": f"{n}?", "chosen": f"{n} 2468"[: 3 + n % 5], "rejected": f"{n} 1357"} for n in range(24)]
    (folder / "judged.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


def recipe_text(folder: Path, case: str, name: str = "") -> str:
    """name: of the run, where it is not that of the case."""
    parallel = "shard" if case.startswith("divided") else "replicate"
    stage = STAGES.get(case, case)
    return (START + CASES[case]).format(folder=folder, case=name or case, stage=stage, here=HERE, parallel=parallel)


def train(folder: Path, case: str) -> Path:
    """Run the case into its folder; gives the folder of its stage."""
    stage, own, recipe = STAGES.get(case, case), folder / case, folder / f"{case}.toml"
    with world().together():
        resume = own.exists()
        disturbed = case in ("stopped", "broken", "divided_short") and not resume
        Disturbed.case, Disturbed.steps = case, 0
        NextToken.losses = Disturbed.losses if disturbed else Disturbed.ordinary  # type: ignore[method-assign]
        if world().first:
            recipe.write_text(recipe_text(folder, case))
    with world().together():
        if world().first and not resume:
            ByteTokenizer().save(own / "tokenizer")
    run(recipe, resume=resume)
    return own / stage


def digest(folder: Path) -> str:
    """Of all weights and optimizer state in the last checkpoint of a run whose weights are divided, read by the
    workers that there are."""
    recipe = load_recipe(folder.with_suffix(".toml"))
    model = Transformer(model_config(recipe.model, ByteTokenizer()), seed=1)
    if world().size > 1:
        shard(model)
    optim = Optim(model, recipe.section(PretrainRecipe).optim)
    load_shards(state.checkpoints(folder / "pretrain" / "checkpoints")[-1] / "shards", model, optim)
    found = {**dict(model.named_parameters()), **optim.named_state()}
    assert len(found) == 4 * len([*model.parameters()]), "weights, two moments and a count of each"
    hashed = sha256()
    for name in sorted(found):
        hashed.update(name.encode() + whole(found[name].detach()).contiguous().numpy().tobytes())
    return hashed.hexdigest()


def main() -> None:
    folder, *cases = sys.argv[1:]
    with joined_world():
        for case in cases:
            try:
                if case == "digest":
                    found = digest(Path(folder) / "divided_short")
                    (Path(folder) / f"digest.{world().size}.{world().rank}").write_text(found)
                else:
                    train(Path(folder), case)
            except Exception as error:
                (Path(folder) / f"{case}.{world().rank}.txt").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
