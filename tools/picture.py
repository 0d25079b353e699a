"""Draw docs/picture.svg, the picture of the README, from the measured numbers in bench/results.

python tools/picture.py            write it
python tools/picture.py --check    exit 1 where it is not up to date
"""

from __future__ import annotations

import json
import sys
from math import log2
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PICTURE = ROOT / "docs" / "picture.svg"
WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 392, 62, 250  # the axes of the curve
BARS, LONGEST = 588, 200  # where the bars begin, and how wide the longest is
NAMES = {"ponder": "Ponder", "eager": "plain torch", "openvino": "OpenVINO"}


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {style}>{words}</text>'


def curve() -> list[str]:
    """The share of Countdown problems solved against the cap on thinking, with 95% intervals."""
    (found,) = json.loads((RESULTS / "countdown_search_cap_curve.json").read_text())["curves"]
    points, top = found["points"], 0.5
    first, last = log2(points[0]["cap"]), log2(points[-1]["cap"])

    def x(point: dict) -> float:
        return round(LEFT + (log2(point["cap"]) - first) / (last - first) * (RIGHT - LEFT), 1)

    def y(share: float) -> float:
        return round(BOTTOM - share / top * (BOTTOM - TOP), 1)

    high = [f"{x(each):g},{y(each['interval_95'][1]):g}" for each in points]
    low = [f"{x(each):g},{y(each['interval_95'][0]):g}" for each in reversed(points)]
    line = " ".join(f"{x(each):g},{y(each['accuracy']):g}" for each in points)
    return [
        text(LEFT, 26, "More thinking, more solved", 'class="title"'),
        text(LEFT, 44, f"share of {points[0]['n']} five-number Countdown problems, 95% intervals"),
        *(
            f'<path class="grid" d="M{LEFT} {y(share):g}H{RIGHT}"/>'
            + text(LEFT - 8, y(share) + 4, f"{share:g}", anchor="end")
            for share in (0, 0.1, 0.2, 0.3, 0.4, 0.5)
        ),
        f'<polygon class="band" points="{" ".join(high + low)}"/>',
        f'<polyline class="line" points="{line}"/>',
        *(f'<circle class="dot" cx="{x(each):g}" cy="{y(each["accuracy"]):g}" r="3"/>' for each in points),
        *(text(x(each), BOTTOM + 18, f"{each['cap']:,}", anchor="middle") for each in points),
        text((LEFT + RIGHT) / 2, BOTTOM + 38, "cap on thinking, tokens", anchor="middle"),
    ]


def bars() -> list[str]:
    """Tokens per second of 64 streams, for each program over the same weights."""
    speeds = json.loads((RESULTS / "decode-256x6.json").read_text())["tokens_per_second"]
    shown = {
        NAMES.get(name, name): median(each["64 streams"]) for name, each in speeds.items() if name != "ponder-torch"
    }
    drawn = [
        text(BARS - 104, 26, "Tokens per second, 64 streams", 'class="title"'),
        text(BARS - 104, 44, "the same 5 million parameters, two CPU cores"),
    ]
    for row, (name, speed) in enumerate(sorted(shown.items(), key=lambda each: -each[1])):
        y, width = TOP + 14 + 36 * row, speed / max(shown.values()) * LONGEST
        kind = "line" if name == "Ponder" else "peer"
        drawn += [
            text(BARS - 8, y + 15, name, anchor="end"),
            f'<rect class="bar {kind}" x="{BARS}" y="{y}" width="{width:.1f}" height="22"/>',
            text(BARS + round(width, 1) + 6, y + 15, f"{speed:,.0f}"),
        ]
    return drawn


def picture() -> str:
    style = (
        "text{font:12px sans-serif;fill:#444}.title{font-size:16px;font-weight:bold;fill:#111}.grid{stroke:#ddd}"
        ".band{fill:#2563eb;opacity:.15}.line{fill:none;stroke:#2563eb;stroke-width:2}.dot{fill:#2563eb}"
        ".bar{stroke:none}.bar.line{fill:#2563eb}.bar.peer{fill:#aab4c3}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    title = (
        "<title>More thinking solves more problems; 64 streams run 4 to 7 times as fast as in other programs</title>"
    )
    return "\n".join([head, title, f"<style>{style}</style>", back, *curve(), *bars(), "</svg>"]) + "\n"


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(picture(), encoding="utf-8")
    elif picture() != PICTURE.read_text(encoding="utf-8"):
        print("docs/picture.svg is out of date: run `make picture`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
