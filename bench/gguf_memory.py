"""What a GGUF file takes in memory to run: beside a process that has only imported Ponder, at most and afterwards.

A separate process loads the file as `ponder ask` does, and runs a prompt and an answer. The aim is 1.25 times the
file, and the pages that were asked for.

    python bench/gguf_memory.py model.gguf
    python bench/gguf_memory.py model.gguf --context 2048
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common import environment, parse, save, table

MIB = 1 << 20
CHILD = """
import json, sys
def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM")]
import ponder, torch
from ponder.engine import Engine
from ponder.engine.kernel import load_to_run
from ponder.sampler.local import LocalSampler, load_sampler
from ponder.types import PhaseTokens, SamplingParams
path, tokens, whole = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "whole"
imported = resident()[0]
if whole:
    engine = load_sampler(path, window=tokens, max_batch=1).engine
else:
    engine = Engine(load_to_run(path), PhaseTokens(), window=tokens, max_batch=1)
engine.submit([5 + i % 1000 for i in range(tokens // 2)], SamplingParams(max_tokens=tokens // 2))
while engine.step():
    pass
config = engine.model.config
pages = tokens * 4 * config.num_layers * config.num_kv_heads * config.head_dim
print(json.dumps({"imported": imported, "after": resident()[0], "most": resident()[1], "pages": pages}))
"""


def measured(path: Path, tokens: int, what: str) -> dict[str, int]:
    command = [sys.executable, "-c", CHILD, str(path), str(tokens), what]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--context", type=int, default=512, help="tokens of prompt and answer (default: 512)")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    args = parse(parser)
    size = args.file.stat().st_size
    found = {what: measured(args.file, args.context, what) for what in ("model", "whole")}
    rows = []
    for what, name in (("model", "the model"), ("whole", "with its vocabulary")):
        each = found[what]
        most, after = (each[key] - each["imported"] - each["pages"] for key in ("most", "after"))
        rows.append([name, *(f"{x / MIB:.0f}" for x in (most, after, each["pages"])), f"{most / size:.2f}x"])
    head = ["", "at most, MiB", "afterwards, MiB", "pages, MiB", "at most / file"]
    text = (
        f"{args.file.name}, {size / MIB:.0f} MiB: memory above a process that has only imported Ponder, without the "
        f"pages of {args.context} tokens.\n\n{table(head, rows)}"
    )
    save(
        "memory",
        {"arguments": {**vars(args), "file": args.file.name}, **environment(), "file_bytes": size, "found": found},
        text,
    )


if __name__ == "__main__":
    main()
