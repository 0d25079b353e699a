"""Try a built wheel as a new user would: install it into an empty environment outside the checkout, and use it.

python tools/try_release.py dist        # needs the wheel that `make release` builds there
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = ("mini/model.safetensors", "mini/README.md", "kernels/cpu/step.cpp", "evaluate/published.csv", "py.typed")
CONTENTS += ("serve/web/index.html", "serve/web/app.js", "serve/web/licenses.txt")


def check_contents(wheel: Path) -> None:
    """The wheel has the data files of the package, and nothing but the package."""
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in CONTENTS if f"ponder/{name}" not in names]
    foreign = [name for name in names if not name.startswith(("ponder/", "ponder-"))]
    if missing or foreign:
        sys.exit(f"{wheel.name}: missing {missing}, foreign {foreign}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str, process: subprocess.Popen[bytes], seconds: float = 600) -> bool:
    """Whether the URL answers before the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return True
        except urllib.error.URLError:
            time.sleep(0.2)
    return False


def main(folder: Path) -> None:
    (wheel,) = folder.resolve().glob("*.whl")
    check_contents(wheel)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)

        def do(*command: str | Path) -> str:
            print("+", *command, flush=True)
            return subprocess.run(command, cwd=home, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout

        do(sys.executable, "-m", "venv", home / "venv")
        bin = home / "venv" / "bin"
        pip = (bin / "pip", "install", "-qq", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
        do(*pip, f"{wheel}[verify,serve]")
        print(do(bin / "python", "-c", "import ponder; print(ponder.__file__)").strip())
        print(do(bin / "ponder", "demo", "-n", "1"))
        shutil.copy(ROOT / "examples" / "ask.py", home)
        print(do(bin / "python", "ask.py"))
        port = free_port()
        print(f"+ ponder serve --port {port}", flush=True)
        with subprocess.Popen([bin / "ponder", "serve", "--port", str(port)], cwd=home, env=environ) as process:
            healthy = answers(f"http://127.0.0.1:{port}/health", process)
            ended = process.poll()
            process.terminate()
        if not healthy:
            sys.exit(f"ponder serve did not answer ({'it ran' if ended is None else f'it ended with {ended}'})")
    print(f"{wheel.name}: installed, answered and served")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
