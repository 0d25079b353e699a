"""Count what a change costs and what a request passes: modules, files on a prompt's way, files of the example commits.

    python tools/passage.py                      this checkout
    python tools/passage.py --beside CHECKOUT    and another one, in the same table
    python tools/passage.py --commits A=HASH …   files that the example commits touch, generated ones left out

A prompt's way: the files of the package in which a function runs between `Reasoner.ask` and the end of
`Engine.submit`. A response's way: the same between the route of `POST /v1/responses` and the sampler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {"docs/architecture.md"}

PROBE = r"""
import sys, threading
from pathlib import Path
import ponder
package = str(Path(ponder.__file__).parent) + "/"
from ponder.testing.tiny import tiny_sampler
from ponder.think import Reasoner

files, waiting, counting = set(), False, False
begins, ends = (lambda name, function: True), (lambda name, function: False)

def watch(frame, event, argument):
    global waiting, counting
    name = frame.f_code.co_filename
    if not (waiting or counting) or not name.startswith(package) or frame.f_code.co_name == "<module>":
        return
    name, function = name.removeprefix(package), frame.f_code.co_name
    if waiting and event == "call" and begins(name, function):
        waiting, counting = False, True
    if counting and ends(name, function, event):
        counting = False
    if counting and event == "call":
        files.add(name)

threading.setprofile(watch)  # of every thread that begins from now on
sys.setprofile(watch)

def traced(work, begin, end):
    global waiting, begins, ends
    files.clear()
    begins, ends, waiting = begin, end, True
    work()
    return sorted(files)
"""

ASKED = """
sampler = tiny_sampler(max_positions=256)
reasoner = Reasoner(sampler)
reasoner.ask("warm up", max_tokens=4)
for file in traced(
    lambda: reasoner.ask("What is 2+2?", max_tokens=4),
    lambda name, function: function == "ask",
    lambda name, function, event: (name, function, event) == ("engine/engine.py", "submit", "return"),
):
    print(file)
"""

SERVED = """
import json
from fastapi.testclient import TestClient
from ponder.serve import Served, create_app
body = {"model": "tiny", "input": "What is 2+2?", "max_output_tokens": 4}
app = create_app([Served(name="tiny", sampler=tiny_sampler(max_positions=256))])
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 50000)) as client:
    def post():
        answer = client.post("/v1/responses", json=body)
        assert answer.status_code == 200, answer.text
    post()
    for file in traced(
        post,
        lambda name, function: name.endswith("routes.py"),
        lambda name, function, event: name == "sampler/local.py" and function in ("sample", "stream"),
    ):
        print(file)
"""


def passed(checkout: Path, probe: str) -> list[str]:
    """The files that a probe passes in a checkout, run by this interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE + probe],
        env={"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: the probe failed:\n{done.stderr}")
    return done.stdout.split()


def modules(checkout: Path) -> int:
    return len([file for file in (checkout / "src" / "ponder").rglob("*.py") if file.name != "__init__.py"])


def touched(commit: str) -> list[str]:
    """The files of a commit that a person wrote."""
    shown = subprocess.run(
        ["git", "show", "--name-only", "--format=", commit], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return sorted(set(shown.stdout.split()) - GENERATED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT")
    parser.add_argument("--commits", nargs="*", default=[], metavar="NAME=COMMIT")
    parser.add_argument("--files", action="store_true", help="list the files too")
    args = parser.parse_args()
    checkouts = [*([args.beside.resolve()] if args.beside else []), ROOT]
    rows = []
    for checkout in checkouts:
        ask, response = passed(checkout, ASKED), passed(checkout, SERVED)
        rows.append((modules(checkout), len(ask), len(response)))
        if args.files:
            print(f"{checkout.name}: ask: {' '.join(ask)}\n{checkout.name}: response: {' '.join(response)}")
    names = [*(["before"] if args.beside else []), "now"]
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for number, what in enumerate(("modules", "files on a prompt's way", "files on a response's way")):
        print(f"| {what} | " + " | ".join(str(row[number]) for row in rows) + " |")
    for each in args.commits:
        name, _, commit = each.partition("=")
        files = touched(commit)
        print(f"{name}: {len(files)} files: {' '.join(files)}")


if __name__ == "__main__":
    main()
