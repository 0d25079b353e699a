"""Draw a council at work: what each voice said in which step, and what was taken from another voice's lane.

python recipes/council/draw.py runs/council/four-1/model "8437 * 2961" -o docs/council.svg
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from ponder.dialogue import Message, Reasoning, Start, Voice, load_format
from ponder.model.checkpoint import load_model
from ponder.sandbox.objects import load_object
from ponder.tokenizer import Tokenizer

HERE = Path(__file__).parent
WIDTH, HEIGHT, GAP, LEFT, TOP = 8, 32, 22, 76, 30  # of a step, a lane, between bands; margins
STEPS = 130  # in a band
COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#0a7d91", "#9a6700", "#57606a")
STYLE = """
text { font: 12px ui-monospace, monospace; fill: #1f2328 }
.small { font-size: 11px; fill: #656d76 }
.link { fill: none; stroke: #8c959f; stroke-width: .8 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #8d96a0 } }
"""


def taken(voices: Sequence[Voice], known: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """((voice, step) that said a name first, (voice, step) that says it again) where these are different voices.

    known: what was said before them.
    """
    first: dict[str, tuple[int, int]] = {}
    for step in range(max(len(voice.text) for voice in voices)):
        for number, voice in enumerate(voices):
            letter = voice.text[step : step + 1]
            if not letter.isalpha() or letter in known:
                continue
            said = first.setdefault(letter, (number, step))
            if said[0] != number:
                yield said, (number, step)


def draw(question: str, message: Message) -> str:
    """The picture, as SVG. Raises ValueError where nobody else spoke."""
    parts = [part for part in message.parts if isinstance(part, Reasoning)]
    council = next((part for part in parts if part.voices), None)
    if council is None:
        raise ValueError("the model thought in one voice: there is nothing to draw")
    voices, (before, after) = council.voices, (parts[0], parts[-1])
    count, steps = len(voices), max(len(voice.text) for voice in voices)
    band = count * HEIGHT + GAP

    def place(voice: int, step: int) -> tuple[float, float]:
        return LEFT + (step % STEPS) * WIDTH, TOP + step // STEPS * band + voice * HEIGHT + HEIGHT - 7

    drawn = [f'<text x="4" y="18">{escape(question)} = {escape(message.text)}</text>']
    drawn.append(f'<text class="small" x="{LEFT + 260}" y="18">{escape(" ".join(before.text.split()))}</text>')
    for said, again in taken(voices, before.text):
        (x0, y0), (x1, y1) = place(*said), place(*again)
        middle = (x0 + x1) / 2
        drawn.append(
            f'<path class="link" d="M{x0 + 4:.0f} {y0 - 4:.0f} Q{middle:.0f} {(y0 + y1) / 2 - 16:.0f} '
            f'{x1 + 4:.0f} {y1 - 4:.0f}"/>'
        )
    for number, voice in enumerate(voices):
        for begin in range(0, steps, STEPS):
            x, y = place(number, begin)
            colour = COLOURS[number]
            drawn.append(f'<text class="small" x="4" y="{y}">voice {number + 1}</text>')
            for at, letter in enumerate(voice.text[begin : begin + STEPS]):
                drawn.append(f'<text x="{x + at * WIDTH}" y="{y}" style="fill:{colour}">{escape(letter)}</text>')
        x, y = place(number, len(voice.text))
        drawn.append(f'<text class="small" x="{x + 3}" y="{y}">{voice.end}</text>')
    bottom = TOP + -(-(steps + 8) // STEPS) * band
    tokens = sum(len(voice.text) for voice in voices)
    words = f"then, in one voice: {' '.join(after.text.split())}   ({tokens} tokens in {steps} steps)"
    drawn.append(f'<text class="small" x="4" y="{bottom}">{escape(words)}</text>')
    size = f'width="{LEFT + STEPS * WIDTH + 60}" height="{bottom + 14}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>", *drawn, "</svg>"]
    return "\n".join(lines) + "\n"


def answered(folder: Path, question: str) -> Message:
    """What the model thinks and says, greedily."""
    decode, context = (load_object(f"{HERE / 'voices.py'}:{name}") for name in ("decode", "Context"))
    model, tokenizer = load_model(folder).eval(), Tokenizer.load(folder)
    form = load_format(tokenizer)
    prompt = form.render([Message.user(question)], start=Start.THINK).ids
    (made,) = decode(model, [context.of(prompt)], form.phase_tokens, longest=model.config.max_positions)
    return form.parse_generated(made.ids[made.prompt :], start=Start.THINK).message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("question")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.write_text(draw(args.question, answered(args.model, args.question)), encoding="utf-8")


if __name__ == "__main__":
    main()
