"""Record what the server answers again: `python tests/golden/regenerate_serve.py`. Look at the diff."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))

from exchanges import EXCHANGES, SETTINGS, exchange, models
from live import serving

FOLDER = Path(__file__).parent / "serve"


def main() -> None:
    for file in FOLDER.glob("*.json"):
        file.unlink()
    with serving(models(), SETTINGS) as live:
        for name in EXCHANGES:
            text = json.dumps(exchange(live, name), indent=1, ensure_ascii=False)
            (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
