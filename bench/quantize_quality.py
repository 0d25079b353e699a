"""What int8 weights cost in quality: the bundled model with weights of 16 and of 8 bits, on held-out problems.

Log-probabilities: worked demonstrations of each family, whose tokens both give probabilities to. Accuracy: the suite
"mini" (reasoning-gym's problems), greedy with thinking, the same problems for both.

    python bench/quantize_quality.py
    python bench/quantize_quality.py -n 20 --demonstrations 5 --families products,gcd
"""

from __future__ import annotations

import argparse
from array import array
from random import Random

import torch
from common import environment, save, table
from torch.nn import functional as F

from ponder.dialogue.messages import Message, Reasoning, Role, Text
from ponder.engine.kernel import FusedRunner, open_runner
from ponder.engine.pages import Chunk
from ponder.evaluate import evaluate, held_out, load_suite, standard_modes
from ponder.kernels import Quantize
from ponder.sampler.local import LocalSampler, load_sampler
from ponder.sampler.opening import find_model
from ponder.tasks.families import FAMILIES
from ponder.train.data.packing import Example
from ponder.train.examples import to_examples

WEIGHTS: dict[str, Quantize | None] = {"bfloat16": None, "int8": "int8"}
PAGE_SIZE, LONGEST = 16, 4096


def demonstrations(sampler: LocalSampler, family: str, n: int) -> list[Example]:
    """Dialogues of one problem each, thinking and answer as the family shows them."""
    task, examples = FAMILIES[family], []
    for problem in held_out(task, n):
        shown = task.demonstrate(problem, Random(problem.question))
        ids = [token for piece in shown.pieces for token in sampler.tokenizer.encode(piece)]
        answer = Message(Role.ASSISTANT, (Reasoning(shown.reasoning), Text(shown.answer, tuple(ids) or None)))
        examples += to_examples([Message.user(problem.question), answer], sampler.format)
    return examples


def logprobs_TV(runner: FusedRunner, example: Example) -> torch.Tensor:
    """Log-probabilities of what may follow, where the next token is one that the model was taught."""
    ids = list(example.ids)
    table = array("i", range(-(-len(ids) // PAGE_SIZE)))
    logits_TV = runner.pages.run(ids, [Chunk(table, 0, len(ids))], range(len(ids)))
    taught = [at for at in range(len(ids) - 1) if example.learned[at + 1]]
    return F.log_softmax(logits_TV[taught].double(), dim=-1)


def distances(sampler: LocalSampler, families: list[str], n: int) -> dict[str, dict[str, float]]:
    """By family, over the tokens that were taught: mean |Δ log-probability| of the token shown, KL(16 bits ‖ 8 bits),
    how often the likeliest token is another, and perplexity under both."""
    model = sampler.engine.model
    runners = [
        open_runner(
            *(model, LONGEST // PAGE_SIZE, PAGE_SIZE), kernel="fused", deterministic=False, quantize=WEIGHTS[name]
        )
        for name in WEIGHTS
    ]
    found = {}
    for family in families:
        parts = []
        for example in demonstrations(sampler, family, n):
            wide_TV, narrow_TV = (logprobs_TV(runner, example) for runner in runners)  # type: ignore[arg-type]
            shown = torch.tensor([id for id, learned in zip(example.ids, example.learned, strict=True) if learned])
            wide_T, narrow_T = (each.gather(1, shown[-len(each) :, None])[:, 0] for each in (wide_TV, narrow_TV))
            kl_T = (wide_TV.exp() * (wide_TV - narrow_TV)).sum(-1)
            other_T = (wide_TV.argmax(-1) != narrow_TV.argmax(-1)).double()
            parts.append(torch.stack([(wide_T - narrow_T).abs(), kl_T, other_T, -wide_T, -narrow_T]))
        means = torch.cat(parts, dim=1).mean(1).tolist()
        found[family] = {
            "tokens": sum(part.shape[1] for part in parts),
            "mean_abs_delta_logprob": means[0],
            "kl": means[1],
            "another_likeliest": means[2],
            **{f"nll_{name}": nll for name, nll in zip(WEIGHTS, means[3:], strict=True)},
        }
    return found


def accuracies(suite: str, n: int) -> dict[str, list[dict[str, object]]]:
    """For each kind of weights, each task's share solved, with 95% intervals."""
    found = {}
    for name, quantize in WEIGHTS.items():
        sampler = load_sampler(find_model("mini"), quantize=quantize)
        modes = standard_modes(["thinking"])
        report = evaluate(sampler, load_suite(suite), n, modes=modes, progress=lambda r: print(r.task, r.solved, r.n))
        found[name] = [
            {
                "task": result.task,
                "n": result.n,
                "solved": result.solved,
                "accuracy": result.accuracy,
                "interval": [result.interval.low, result.interval.high],
            }
            for result in report.results
        ]
    return found


def report(result: dict[str, object], n: int) -> str:
    distance: dict[str, dict[str, float]] = result["distances"]  # type: ignore[assignment]
    accuracy: dict[str, list[dict[str, object]]] = result["accuracies"]  # type: ignore[assignment]
    first = [
        [
            family,
            f"{each['tokens']:,}",
            f"{each['mean_abs_delta_logprob']:.5f}",
            f"{each['kl']:.1e}",
            f"{each['another_likeliest']:.3%}",
            f"{each['nll_bfloat16']:.4f}",
            f"{each['nll_int8']:.4f}",
        ]
        for family, each in distance.items()
    ]
    second = []
    for rows in zip(*accuracy.values(), strict=True):
        cells = []
        for row in rows:
            low, high = row["interval"]
            cells.append(f"{row['accuracy']:.3f} ({low:.3f}-{high:.3f})")
        second.append([str(rows[0]["task"]), *cells])
    head = ["family", "tokens", "mean abs. Δ log-prob", "KL(bf16, int8)", "another likeliest token"]
    return (
        "mini with int8 weights (symmetric, a scale for each output; embedding bfloat16) against its bfloat16 ones.\n\n"
        "Held-out demonstrations, per token of the working and the answer:\n\n"
        f"{table([*head, 'loss, bf16', 'loss, int8'], first)}\n\n"
        f"Suite mini, greedy, thinking, the same {n} problems of each task, share solved (95% interval):\n\n"
        f"{table(['task', *WEIGHTS], second)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200, help="problems of each task")
    parser.add_argument("--demonstrations", type=int, default=50, help="of each family")
    parser.add_argument("--families", default=",".join(FAMILIES), help="with commas between")
    args = parser.parse_args()
    families = args.families.split(",")
    sampler = load_sampler(find_model("mini"))
    result = {
        "arguments": vars(args),
        **environment(),
        "distances": distances(sampler, families, args.demonstrations),
        "accuracies": accuracies(",".join(f"gym:{family}" for family in families), args.n),
    }
    save("int8_quality", result, report(result, args.n))


if __name__ == "__main__":
    main()
