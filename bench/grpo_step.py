"""One step of GRPO against TRL's trainer: seconds for generation and update, and peak memory.

Both start from the same exported weights (random, float32, the Qwen3 layout) and take the same steps: 8 prompts, 8
answers of exactly 128 tokens to each (no token stops an answer on either side), temperature 1, advantages over the
group, token-level loss clipped at 0.2, no KL penalty, AdamW, no gradient checkpointing. The reward is one function of
the answer's text. Both train float32 weights under bfloat16 products, their default here; TRL samples under its
bfloat16 autocast, Ponder from bfloat16 copies of the weights. Each in a separate process; steps are interleaved.

    python bench/grpo_step.py --trl .venv-trl/bin/python     an interpreter that has trl and Ponder's own packages
    python bench/grpo_step.py --contenders ponder
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

PROMPTS, SAMPLES, TOKENS, CLIP, LR = 8, 8, 128, 0.2, 1e-6
GOAL = 3.5
VOCABULARY = Path(__file__).parents[1] / "src" / "ponder" / "mini"

Answer = Callable[[Mapping[str, float]], None]


def question(rng: Random) -> str:
    return f"What is {rng.randint(100, 999)} times {rng.randint(100, 999)}?"


def reward(text: str) -> float:
    """The share of digits: random weights write some."""
    return sum(c.isdigit() for c in text) / (len(text) + 1)


def ponder(args: argparse.Namespace, wait: Callable[[], None], answer: Answer) -> None:
    """The stage's own learner and loop; what is added waits for the command and tells the seconds."""
    import torch

    from ponder.dialogue import PonderFormat
    from ponder.model.checkpoint import load_model
    from ponder.sampler.local import LocalSampler
    from ponder.tasks.protocol import Grade, Problem
    from ponder.tokenizer import Tokenizer
    from ponder.train.algorithms.grpo import Grpo, GrpoRecipe
    from ponder.train.loop.fit import Job, fit
    from ponder.train.loop.stage import StageStart
    from ponder.train.policy.losses import Baseline
    from ponder.train.policy.stage import RolloutLearner
    from ponder.train.recipe.sections import MixRecipe, OptimRecipe, Recipe, RunRecipe, Schedule
    from ponder.types import PhaseTokens

    torch.set_num_threads(args.threads)

    class Digits:
        name = "digits"

        def sample(self, rng: Random, level: float) -> Problem:
            return Problem(task=self.name, question=question(rng), answer="")

        def grade(self, problem: Problem, answer: str) -> Grade:
            return Grade(score=reward(answer))

        def same(self, a: str, b: str) -> bool:
            return a == b

    class Endless(PonderFormat):
        """No token means anything to the engine: every answer is as long as it may be."""

        def __init__(self, tokenizer: Tokenizer) -> None:
            super().__init__(tokenizer)
            self.phase_tokens = PhaseTokens()

    class Measured(RolloutLearner):
        began = 0.0

        def batches(self, step: int) -> Generator[Any, None, None]:
            made = super().batches(step)
            while True:
                wait()
                self.began = time.perf_counter()
                yield next(made)

        def _open(self) -> LocalSampler:
            window = self.recipe.sequence + 1
            return LocalSampler(
                self.model, self.tokenizer, Endless(self.tokenizer), window=window, max_batch=PROMPTS * SAMPLES
            )

        def report(self) -> Any:
            seconds = time.perf_counter() - self.began
            told = super().report()
            assert told.metrics["generated"] == PROMPTS * SAMPLES * TOKENS, told.metrics
            answer({"step": seconds, "generation": told.metrics["rollout_seconds"]})
            return told

    Digits.__module__ = "ponder.bench_digits"  # graded in this process, as Ponder's own families are
    sys.modules["bench_digits"] = sys.modules[__name__]
    globals()["Digits"] = Digits
    recipe = GrpoRecipe(
        steps=1_000_000,
        tokens=1,
        prompts=PROMPTS,
        samples=SAMPLES,
        max_tokens=TOKENS,
        sequence=args.sequence,
        batch=args.rows,
        mix=(MixRecipe(task="bench_digits:Digits"),),
        baseline=Baseline.GRPO,
        clip_low=CLIP,
        clip_high=CLIP,
        optim=OptimRecipe(lr=LR, muon_lr=LR, schedule=Schedule.LINEAR, warmup=0.0, weight_decay=0.0),
    )
    model, tokenizer = load_model(args.model, dtype=torch.float32), Tokenizer.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        run = RunRecipe(folder=folder, device="cpu", checkpoint_minutes=1e9)
        start = StageStart(
            recipe=Recipe(run=run, sections=(recipe,)),
            stage=recipe,
            folder=Path(folder),
            model=model,
            tokenizer=tokenizer,
            tokenizer_folder=Path(args.model),
        )
        grpo = Grpo()
        learner = Measured(start, partial(grpo.lessons, recipe), grpo.gradient(recipe, model))
        job = Job(
            name="grpo",
            folder=Path(folder),
            run=run,
            stage=recipe,
            batches=learner.batches,
            learner=learner,
            num_steps=recipe.steps,
        )
        answer({})
        fit(model, job)


def trl(args: argparse.Namespace, wait: Callable[[], None], answer: Answer) -> None:
    """TRL's trainer with its defaults but for what the comparison fixes; a callback waits for the command."""
    import torch

    torch.set_num_threads(args.threads)
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    began, generated = [0.0], [0.0]

    class Gate(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait()
            began[0], generated[0] = time.perf_counter(), 0.0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            answer({"step": time.perf_counter() - began[0], "generation": generated[0]})

    class Trainer(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            start = time.perf_counter()
            made = super()._generate_and_score_completions(inputs)
            generated[0] += time.perf_counter() - start
            assert int(made["completion_mask"].sum()) == PROMPTS * SAMPLES * TOKENS, "an answer ended early"
            return made

    rng = Random(0)
    prompts = [{"prompt": [{"role": "user", "content": question(rng)}]} for _ in range(512)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            num_generations=SAMPLES,
            per_device_train_batch_size=args.rows_trl,
            gradient_accumulation_steps=PROMPTS * SAMPLES // args.rows_trl,
            max_completion_length=TOKENS,
            max_steps=1_000_000,
            learning_rate=LR,
            gradient_checkpointing=False,
            generation_kwargs={"eos_token_id": None},
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [reward(each[0]["content"]) for each in completions],
            args=arguments,
            train_dataset=Dataset.from_list(prompts),
            processing_class=AutoTokenizer.from_pretrained(args.model),
            callbacks=[Gate()],
        )
        trainer.eos_token_ids = []  # else what it samples after such an id is masked out of the loss
        answer({})
        trainer.train()


CONTENDERS = {"ponder": ponder, "trl": trl}


def serve(args: argparse.Namespace) -> None:
    """A contender in this process: a line in, a step, a JSON line out."""
    out, sys.stdout = sys.stdout, sys.stderr

    def wait() -> None:
        if not sys.stdin.readline():
            os._exit(0)

    def answer(told: Mapping[str, float]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**told, "peak_mib": peak}), file=out, flush=True)

    CONTENDERS[args.serve](args, wait, answer)


@dataclass
class Contender:
    """A process. steps: of each measured step, its seconds by part."""

    name: str
    process: subprocess.Popen[str]
    steps: list[dict[str, float]] = field(default_factory=list)

    def hear(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self.process.wait()}; what it said stands above")
        return json.loads(line)

    def step(self) -> dict[str, float]:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.hear()


def measure(args: argparse.Namespace) -> list[Contender]:
    import torch
    from common import random_model

    from ponder.model.checkpoint import save_model
    from ponder.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(VOCABULARY)
    vocab = -(-tokenizer.vocab_size // 32) * 32
    found: list[Contender] = []
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        save_model(random_model(args.shape, vocab, 2048, torch.float32), folder)
        tokenizer.save(folder)
        try:
            for name in args.contenders.split(","):
                python = args.trl if name == "trl" else sys.executable
                threads = str(args.threads or torch.get_num_threads())
                command = [python, __file__, "--serve", name, "--model", str(folder), "--threads", threads]
                command += ["--rows", str(args.rows), "--rows-trl", str(args.rows_trl)]
                command += ["--sequence", str(args.sequence)]
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=dict(os.environ) | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
                )
                contender = Contender(name, process)
                try:
                    contender.hear()
                except RuntimeError as error:
                    print(f"left out: {error}")
                    continue
                found.append(contender)
            for number in range(args.warmup + args.rounds):
                for contender in found if number % 2 else found[::-1]:
                    time.sleep(0.3)  # threads of the one before that spin while they wait have gone to sleep
                    told = contender.step()
                    warm = number >= args.warmup
                    if warm:
                        contender.steps.append(told)
                    which = f"round {number - args.warmup + 1}" if warm else "warm-up"
                    seconds = f"{told['step']:.3f} s, {told['generation']:.3f} of it until the rewards"
                    print(f"{which}, {contender.name}: {seconds}; {told['peak_mib']:,.0f} MiB", flush=True)
        finally:
            for contender in found:
                contender.process.kill()
                contender.process.wait()
    return found


def report(args: argparse.Namespace, found: list[Contender], threads: int) -> str:
    from common import ratio, spread, table

    rows = [
        [
            each.name,
            spread([s["step"] for s in each.steps], 2),
            spread([s["generation"] for s in each.steps], 2),
            spread([s["step"] - s["generation"] for s in each.steps], 2),
            f"{each.steps[-1]['peak_mib']:,.0f}",
        ]
        for each in found
    ]
    head = ["seconds, median (range)", "step", "answers and rewards", "update", "peak MiB"]
    parts = [
        f"{args.shape}, {PROMPTS} prompts x {SAMPLES} answers of exactly {TOKENS} tokens, {threads} threads, "
        f"{args.rounds} rounds; in micro-batches of {args.rows} x {args.sequence} tokens (ponder) and {args.rows_trl} "
        "answers (trl):",
        table(head, rows),
    ]
    times = {each.name: [s["step"] for s in each.steps] for each in found}
    if times.keys() >= {"ponder", "trl"}:
        got = ratio(times["trl"], times["ponder"])
        short = ", SHORT" if got < GOAL else ""
        parts.append(f"ponder is {got:.2f} times as fast (to reach {GOAL}{short}).")
    return "\n\n".join(parts)


def main() -> None:
    from common import environment, options, parse, save

    parser = options(__doc__, rounds=5, shapes=("256x6", "384x8", "512x8"))
    parser.add_argument("--contenders", default="ponder,trl")
    parser.add_argument("--trl", metavar="PYTHON", default=sys.executable, help="an interpreter that has trl")
    parser.add_argument("--warmup", type=int, default=2, help="steps of each that are not counted")
    parser.add_argument("--rows", type=int, default=4, help="rows of Ponder's micro-batches")
    parser.add_argument("--sequence", type=int, default=1024, help="tokens of such a row")
    parser.add_argument("--rows-trl", type=int, default=8, help="answers in TRL's micro-batches; 8 is its default")
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parse(parser)
    if args.serve:
        serve(args)
        return
    found = measure(args)
    where = environment()
    result = {
        "arguments": {key: value for key, value in vars(args).items() if key not in ("trl", "serve", "model")},
        **where,
        "steps": {each.name: each.steps for each in found},
        "median_seconds": {each.name: statistics.median(s["step"] for s in each.steps) for each in found},
    }
    save(f"grpo_step-{args.shape}", result, report(args, found, int(where["threads"])))  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
