"""LoRA training: tokens per second and peak memory, beside PEFT with transformers, in one interleaved run.

Each contender is a separate process over the same model folder, with the same batches and adapters: rank 16 beside
every projection, AdamW, bfloat16 products. Rounds are interleaved, so that a machine that is shared slows all alike;
ratios are of tokens per CPU-second, which depends least on neighbours. Memory is the largest resident set of the
process after the first step, its imports included.

    python bench/lora_train.py MODEL                       # a folder, or a GGUF file
    python bench/lora_train.py MODEL --peers eager checkpointed compiled

eager: weights in bfloat16, adapters in float32 under autocast, PEFT's default. checkpointed: the same with gradient
checkpointing. compiled: the same as eager under torch.compile. Needs peft.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import environment, ratio, save, spread, table
from torch import Tensor

RANK = 16
PEERS = ("eager", "checkpointed", "compiled")
Step = Callable[[Tensor, Tensor], float]


def ponder_step(folder: str) -> Step:
    from ponder.model.checkpoint import load_model
    from ponder.model.lora import add_lora
    from ponder.model.loss import Backend, next_token_loss, training_stack
    from ponder.train.loop.fit import keep_freed_memory
    from ponder.train.loop.stage import round_frozen

    keep_freed_memory()
    model = load_model(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(add_lora(model, RANK, 2.0 * RANK), lr=1e-3, fused=True)
    round_frozen(model, torch.bfloat16)
    model.compute_dtype = torch.bfloat16

    def step(ids_BT: Tensor, targets_BT: Tensor) -> float:
        stack = training_stack(model)
        loss = next_token_loss(model, ids_BT, targets_BT, backend=Backend.KERNELS, stack=stack)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def peft_step(folder: str, kind: str) -> Step:
    import peft
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, task_type="CAUSAL_LM")
    )
    if kind == "checkpointed":
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)

    def loss_of(ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids_BT, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets_BT.flatten())

    compiled = torch.compile(loss_of, dynamic=False) if kind == "compiled" else loss_of

    def step(ids_BT: Tensor, targets_BT: Tensor) -> float:
        loss = compiled(ids_BT, targets_BT)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def work(kind: str, folder: str, batch: int, sequence: int) -> None:
    """Take a step for each line on stdin, and answer with what it took."""
    step = ponder_step(folder) if kind == "ponder" else peft_step(folder, kind)
    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    for _ in sys.stdin:
        ids = torch.randint(0, vocabulary, (batch, sequence + 1), generator=generator)
        wall, cpu = time.perf_counter(), time.process_time()
        loss = step(ids[:, :-1], ids[:, 1:])
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss}
        took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(took), flush=True)


def ask(process: subprocess.Popen[str]) -> dict[str, float]:
    to, back = process.stdin, process.stdout
    assert to is not None
    assert back is not None
    to.write("step\n")
    to.flush()
    line = back.readline()
    if not line:
        raise SystemExit(f"a contender ended with status {process.wait()}")
    answer: dict[str, float] = json.loads(line)
    return answer


def folder_of(model: str, into: str) -> str:
    """The model as a folder in the Hugging Face layout, in bfloat16, so that all contenders read one."""
    from ponder.model.checkpoint import load_model, save_model

    if Path(model).is_dir():
        return model
    save_model(load_model(model, dtype=torch.bfloat16), Path(into) / "model")
    return str(Path(into) / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["eager", "checkpointed"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=("ponder", *PEERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.model, args.batch, args.sequence)
        return
    names = ["ponder", *args.peers]
    with tempfile.TemporaryDirectory() as place:
        folder = folder_of(args.model, place)
        sizes = ["--batch", str(args.batch), "--sequence", str(args.sequence)]
        command = [sys.executable, __file__, folder, *sizes, "--worker"]
        processes = {
            name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for name in names
        }
        firsts = {name: ask(process) for name, process in processes.items()}  # compilers and caches do not count
        rounds = [{name: ask(process) for name, process in processes.items()} for _ in range(args.rounds)]
        for process in processes.values():
            process.communicate()
    tokens = args.batch * args.sequence
    rows, figures = [], {}
    for name in names:
        rates = {clock: [tokens / each[name][clock] for each in rounds] for clock in ("wall", "cpu")}
        figures[name] = rates | {"peak": rounds[-1][name]["peak"], "first_loss": firsts[name]["loss"]}
    ours = figures["ponder"]["cpu"]
    for name in names:
        found = figures[name]
        times = "" if name == "ponder" else f"{ratio(ours, found['cpu']):.2f}x"
        label = name if name == "ponder" else f"PEFT, {name}"
        memory, loss = f"{found['peak'] / 1e9:.2f}", f"{found['first_loss']:.3f}"
        rows.append([label, spread(found["wall"]), spread(found["cpu"]), times, memory, loss])
    head = ["", "tokens/s", "tokens/CPU-s", "ponder, by CPU time", "peak GB", "loss of step 1"]
    text = f"{args.batch} x {args.sequence} tokens a step, rank {RANK}\n\n{table(head, rows)}\n"
    save("lora_train", {**environment(), **vars(args), "model": Path(args.model).name, "figures": figures}, text)


if __name__ == "__main__":
    main()
