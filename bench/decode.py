"""Decoding and prefill against transformers, plain torch, llama.cpp and OpenVINO: tokens per second, beside ceilings.

All contenders load the same exported weights (random, bfloat16), each in a separate process (`bench/peers.py`);
before anything is timed, each one's log-probabilities are held against float32. Rounds are interleaved; the ceilings
(best DRAM read, bfloat16 matrix product) are measured between them. Every token is sampled at temperature 1. Decoding
counts from the moment when every stream has its first token. A contender that is not installed is left out, and said
to be.

    python bench/decode.py --shape 256x6
    python bench/decode.py --shape 0.6b --vocab 151936 --rounds 3
    python bench/decode.py --avx2                        what a laptop without AVX-512 would show
    python bench/decode.py --openvino .venv-ov/bin/python   optimum-intel wants another transformers
    python bench/decode.py --shape 1b --vocab 128256 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from common import environment, options, parse, random_ids, random_model, ratio, save, spread, table

from ponder.export.weights import gguf_tensors, hyperparameters
from ponder.gguf.layout import TensorType
from ponder.gguf.writing import write_gguf
from ponder.kernels.ceilings import dram_read_bytes_per_second, matmul_flops
from ponder.kernels.machine import InstructionSet, held_to
from ponder.model.checkpoint import open_model, save_model
from ponder.model.transformer import Transformer

PROMPT = 128


@dataclass(frozen=True)
class Case:
    """streams: of decoding; 0: prefill. tokens: of an answer, or of the prompt. samples: of each of `streams` prompts,
    prompts included in the time; 0: decoding alone. goals: how many times a contender's rate is to be reached."""

    name: str
    streams: int
    tokens: int
    goals: dict[str, float] = field(default_factory=dict)
    samples: int = 0


CASES = {
    "256x6": [
        Case("1 stream", 1, 256, {"llama.cpp": 2.3, "eager": 6}),
        Case("8 streams", 8, 128, {"llama.cpp": 4, "transformers": 5}),
        Case("64 streams", 64, 64, {"llama.cpp": 5, "transformers": 4, "openvino": 2.5}),
        Case("prefill", 0, 1024, {"llama.cpp": 3, "transformers": 2}),
        Case("32 samples of 8 prompts", 8, 64, samples=32),
    ],
    "0.6b": [
        Case("1 stream", 1, 32, {"llama.cpp": 1.2}),
        Case("32 streams", 32, 12, {"llama.cpp": 3, "eager": 2}),
        Case("prefill", 0, 1024, {"transformers": 1}),
    ],
    "1b": [
        Case("1 stream", 1, 128),
        Case("32 streams", 32, 128),
        Case("256 streams", 256, 128, {"transformers": 3}),
        Case("prefill", 0, 1024),
        Case("8 samples of 32 prompts", 32, 128, samples=8),
    ],
}


@dataclass
class Contender:
    """A process that answers commands. rates: tokens per second in each round, by case."""

    name: str
    process: subprocess.Popen[str]
    about: str = ""
    rates: dict[str, list[float]] = field(default_factory=dict)
    peak_mib: float = 0.0

    def ask(self, verb: str, **arguments: object) -> object:
        """Raises RuntimeError when the process died."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self.process.stdin.flush()
        answer = self.hear()
        self.peak_mib = answer["peak_mib"]  # type: ignore[assignment]
        return answer["answer"]

    def hear(self) -> dict[str, object]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self.process.wait()}; what it said stands above")
        return json.loads(line)

    def run(self, case: Case, prompts: list[list[int]]) -> float | None:
        """Tokens per second; None where the contender has no such thing."""
        if case.samples:
            seconds = self.ask("rollouts", prompts=prompts, samples=case.samples, new=case.tokens)
            return None if seconds is None else case.streams * case.samples * case.tokens / float(seconds)  # type: ignore[arg-type]
        if case.streams:
            seconds = self.ask("decode", prompts=prompts, new=case.tokens)
            return case.streams * (case.tokens - 1) / float(seconds)  # type: ignore[arg-type]
        return case.tokens / float(self.ask("prefill", prompt=prompts[0]))  # type: ignore[arg-type]


@contextmanager
def contenders(args: argparse.Namespace, model: Transformer) -> Iterator[list[Contender]]:
    """Those asked for that are installed, started over the same weights."""
    with tempfile.TemporaryDirectory() as parent:
        folder, gguf = Path(parent) / "model", Path(parent) / "model.gguf"
        save_model(model, folder)
        found: list[Contender] = []
        for name in args.contenders.split(","):
            peer, python, env = name.removesuffix(" avx2"), sys.executable, dict(os.environ)
            if name.endswith(" avx2"):
                env |= held_to(InstructionSet.AVX2)
            if peer == "openvino":
                python = args.openvino
            if peer == "llama.cpp" and not gguf.exists():
                write_weights(folder, gguf)
            threads = str(torch.get_num_threads())
            command = [python, str(Path(__file__).parent / "peers.py"), peer, "--model", str(folder)]
            command += ["--gguf", str(gguf), "--threads", threads, "--window", str(args.window)]
            command += ["--device", args.device]
            env |= {"OMP_NUM_THREADS": threads}
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
            contender = Contender(name, process)
            try:
                contender.about = str(contender.hear()["about"])
            except RuntimeError as error:
                print(f"left out: {error}")
                continue
            found.append(contender)
            print(f"{name}: {contender.about}")
        try:
            yield found
        finally:
            for contender in found:
                contender.process.kill()
                contender.process.wait()


def write_weights(folder: Path, file: Path) -> None:
    """The model of a folder without a tokenizer as GGUF: llama.cpp runs ids without knowing what they mean."""
    with open_model(folder) as (config, stored), file.open("wb") as stream:
        fields = hyperparameters(config, TensorType.BF16) | {"tokenizer.ggml.model": "no_vocab"}
        write_gguf(stream, fields, gguf_tensors(config, stored, TensorType.BF16))


def check(args: argparse.Namespace, model: Transformer, entrants: list[Contender]) -> dict[str, float]:
    """Largest difference of a log-probability from float32, among each contender's 20 likeliest ids after each of
    eight prompts."""
    generator = torch.Generator().manual_seed(9)
    prompts = [random_ids(PROMPT, args.vocab, generator) for _ in range(8)]
    with torch.inference_mode():
        model.float()
        exact = [model(torch.tensor([prompt]))[0, -1].log_softmax(-1) for prompt in prompts]
    found = {}
    for entrant in entrants:
        differences = []
        for prompt, exact_V in zip(prompts, exact, strict=True):
            top: list[tuple[int, float]] = entrant.ask("top", prompt=prompt)  # type: ignore[assignment]
            differences += [abs(value - float(exact_V[id])) for id, value in top]
        found[entrant.name] = max(differences)
        print(f"{entrant.name}: log-probabilities within {found[entrant.name]:.4f} of float32")
    return found


def measure(args: argparse.Namespace) -> dict[str, object]:
    model = random_model(args.shape, args.vocab, args.window, torch.bfloat16)
    body = sum(p.numel() for p in model.model.layers.parameters())
    read = 2 * (body + args.vocab * model.config.hidden_size)  # bytes of weights that a token needs, the head included
    cases = [case for case in CASES[args.shape] if not args.cases or case.name in args.cases.split(",")]
    generator = torch.Generator().manual_seed(0)
    ceilings: dict[str, list[float]] = {"dram": [], "matmul": []}
    with contenders(args, model) as entrants:
        differences = check(args, model, entrants)
        for number in range(1 + args.rounds):
            for case in cases:
                length = PROMPT if case.streams else case.tokens
                prompts = [random_ids(length, args.vocab, generator) for _ in range(max(1, case.streams))]
                for entrant in entrants if number % 2 else entrants[::-1]:
                    time.sleep(0.3)  # threads of the one before that spin while they wait have gone to sleep
                    rate = entrant.run(case, prompts)
                    if rate is None:
                        continue
                    if number:
                        entrant.rates.setdefault(case.name, []).append(rate)
                    print(f"{f'round {number}' if number else 'warm-up'}, {case.name}, {entrant.name}: {rate:,.0f}")
            if number:
                ceilings["dram"].append(dram_read_bytes_per_second(torch.get_num_threads(), args.device))
                ceilings["matmul"].append(matmul_flops(2048 if args.device == "cpu" else 8192, device=args.device))
    return {
        "arguments": vars(args),
        **environment(),
        "parameters": model.config.num_parameters,
        "contenders": {entrant.name: entrant.about for entrant in entrants},
        "tokens_per_second": {entrant.name: entrant.rates for entrant in entrants},
        "peak_mib": {entrant.name: entrant.peak_mib for entrant in entrants},
        "log_probability_difference": differences,
        "ceilings": ceilings,
        "weight_bytes_per_token": read,
        "flops_per_token": read,  # two operations for each weight of two bytes
    }


def report(result: dict[str, object], args: argparse.Namespace) -> str:
    rates: dict[str, dict[str, list[float]]] = result["tokens_per_second"]  # type: ignore[assignment]
    ceilings: dict[str, list[float]] = result["ceilings"]  # type: ignore[assignment]
    peak: dict[str, float] = result["peak_mib"]  # type: ignore[assignment]
    differences: dict[str, float] = result["log_probability_difference"]  # type: ignore[assignment]
    cases = [case for case in CASES[args.shape] if case.name in next(iter(rates.values()))]
    names = [case.name for case in cases]
    rows = [
        [
            name,
            *(spread(rates[name][case]) if case in rates[name] else "-" for case in names),
            f"{differences[name]:.4f}",
            f"{peak[name]:,.0f}",
        ]
        for name in rates
    ]
    head = ["tokens/s, median (range)", *names, "log-prob. off float32 by", "peak MiB"]
    parts = [
        f"{args.shape}, vocabulary {args.vocab:,}, bfloat16, prompts of {PROMPT}, {result['threads']} threads, "
        f"{args.rounds} rounds:",
        table(head, rows),
    ]
    ours, *others = sorted(rates, key=lambda name: name.split()[0] != "ponder")
    if ours.split()[0] == "ponder" and others:
        rows = []
        for name in others:
            cells = []
            for case in cases:
                if case.name not in rates[name]:
                    cells.append("-")
                    continue
                got, goal = ratio(rates[ours][case.name], rates[name][case.name]), case.goals.get(name)
                cells.append(f"{got:.2f}x" + (f" (to reach {goal}x{', SHORT' if got < goal else ''})" if goal else ""))
            rows.append([name, *cells])
        parts.append(table(["ponder against", *names], rows))
    dram, matmul = statistics.median(ceilings["dram"]), statistics.median(ceilings["matmul"])
    parts.append(
        f"Ceilings in the same run: DRAM read {dram / 1e9:.1f} GB/s, matrix product {matmul / 1e12:.2f} TFLOP/s."
    )
    read = float(result["weight_bytes_per_token"])  # type: ignore[arg-type]
    for name in rates:
        bytes_read = read / 2 if name == "ponder-int8" else read
        if args.shape != "256x6" and "1 stream" in rates[name]:
            share = [
                rate * bytes_read / top for rate, top in zip(rates[name]["1 stream"], ceilings["dram"], strict=True)
            ]
            parts.append(f"{name}: one stream reads weights at {statistics.median(share):.0%} of the DRAM ceiling.")
        if "prefill" in rates[name]:
            share = [rate * read / top for rate, top in zip(rates[name]["prefill"], ceilings["matmul"], strict=True)]
            parts.append(f"{name}: prefill runs at {statistics.median(share):.0%} of the matmul ceiling.")
    return "\n\n".join(parts)


def main() -> None:
    parser = options(__doc__, rounds=5, shapes=tuple(CASES))
    parser.add_argument("--contenders", default="ponder,ponder-torch,transformers,eager,llama.cpp")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--avx2", action="store_true", help="all but llama.cpp held to AVX2")
    parser.add_argument("--openvino", metavar="PYTHON", help="an interpreter that has optimum-intel: OpenVINO runs too")
    parser.add_argument("--cases", default="", help="some of the shape's cases, by name")
    parser.add_argument("--window", type=int, default=1280)
    args = parse(parser)
    if args.avx2:
        args.contenders = "ponder avx2,ponder-torch avx2,transformers avx2,eager avx2"
    if args.device != "cpu":
        args.contenders = "ponder,ponder-torch,transformers,generate_batch"
    if args.openvino:
        args.contenders += ",openvino"
    result = measure(args)
    name = f"decode-{args.shape}{'-avx2' if args.avx2 else ''}{'' if args.device == 'cpu' else '-cuda'}"
    save(name, result, report(result, args))


if __name__ == "__main__":
    main()
