"""Damaged files, a hundred of them (a thousand under `slow`): a typed error or a model, in little memory.

A child process reads them under a limit on its address space: what it had after the imports, twice the file, and a
margin for threads and allocators.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

CHILD = r"""
import random, resource, struct, sys
from pathlib import Path
import ponder.model.checkpoint, ponder.tokenizer
from ponder.model.checkpoint import open_model
from ponder.tokenizer import Tokenizer
from ponder.types import PonderError

whole, path, first, count = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
header = int(sys.argv[5])  # bytes of the declarations
HUGE = (0, 1, 7, 10**9, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)

def mutate(random):
    data = bytearray(whole)
    match random.randrange(5):
        case 0:  # cut off
            return data[: random.randrange(len(data))]
        case 1:  # a count, a length, an offset
            at = random.randrange(header - 8)
            data[at : at + 8] = struct.pack("<Q", random.choice(HUGE))
        case 2:  # a type
            at = random.randrange(header - 4)
            data[at : at + 4] = struct.pack("<I", random.choice([0, 4, 8, 9, 12, 13, 255, random.randrange(2**32)]))
        case 3:  # single bits, and a few of them
            for _ in range(random.randrange(1, 30)):
                data[random.randrange(header)] ^= 1 << random.randrange(8)
        case 4:  # a part moved, so that declarations no longer fit one another
            at, to, size = random.randrange(header), random.randrange(header), random.randrange(1, 200)
            data[to : to + size] = data[at : at + size]
    return data

def load():
    with open_model(path) as (config, tensors):
        Tokenizer.load(path)
        for tensor in tensors.values():
            tensor.read()

path.write_bytes(whole)
load()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
most = used + 2 * len(whole) + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
refused = 0
for number in range(first, first + count):
    path.write_bytes(mutate(random.Random(number)))
    try:
        load()
    except PonderError as error:
        assert str(path) in str(error) or "tokeniz" in str(error), error
        refused += 1
    except BaseException as error:
        raise SystemExit(f"mutation {number}: {type(error).__name__}: {error}")
print(refused)
"""


def read_damaged(tmp_path: Path, first: int, count: int) -> int:
    """How many of the damaged files were refused; the others still are models."""
    from ponder.export import export_gguf
    from ponder.gguf.reading import GgufFile
    from ponder.model.checkpoint import save_model
    from ponder.model.transformer import Transformer
    from ponder.testing.tiny import ByteTokenizer, tiny_config

    save_model(Transformer(tiny_config()), tmp_path / "model")
    ByteTokenizer().save(tmp_path / "model")
    whole = tmp_path / "whole.gguf"
    export_gguf(tmp_path / "model", whole)
    header = min(each.offset for each in GgufFile(whole).tensors.values())
    arguments = [str(whole), str(tmp_path / "damaged.gguf"), str(first), str(count), str(header)]
    ran = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return int(ran.stdout)


def test_damaged_files_are_refused_by_typed_errors(tmp_path: Path) -> None:
    assert read_damaged(tmp_path, 0, 100) > 50


@pytest.mark.slow
def test_a_thousand_damaged_files_are_refused_by_typed_errors(tmp_path: Path) -> None:
    assert read_damaged(tmp_path, 100, 1000) > 500
