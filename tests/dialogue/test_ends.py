"""Every end token that a folder declares ends a turn, whichever of its files declares it and whatever the format."""

import json
import shutil
from pathlib import Path

import pytest

from ponder.dialogue import ParseStatus, Start, load_format, train_tokenizer
from ponder.tokenizer import Tokenizer

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
FILES = ("config.json", "generation_config.json")


@pytest.mark.parametrize("family", ["qwen3", "llama3", "deepseek_r1", "ponder", "foreign"])
@pytest.mark.parametrize("file", FILES)
def test_a_declared_end_ends_a_turn(family: str, file: str, tmp_path: Path) -> None:
    if family == "ponder":
        train_tokenizer([], 320).save(tmp_path)
    elif family == "foreign":
        Tokenizer.train([], 288, ["<a>", "<b>", "<c>"], config={"chat_template": "{{ messages }}"}).save(tmp_path)
    else:
        shutil.copytree(FAMILIES / family, tmp_path, dirs_exist_ok=True)
    known = load_format(Tokenizer.load(tmp_path)).phase_tokens.end
    tokenizer = Tokenizer.load(tmp_path)
    others = [id for id in tokenizer.control.values() if id not in known][-2:]
    ordinary = tokenizer.encode("#")
    (tmp_path / file).write_text(json.dumps({"eos_token_id": [*others, *ordinary, tokenizer.vocab_size]}))
    form = load_format(Tokenizer.load(tmp_path))
    assert form.phase_tokens.end == (*known, *others, *ordinary)
    for end in form.phase_tokens.end:
        parsed = form.parse_generated([*tokenizer.encode("Hi"), end], start=Start.DIRECT)
        assert (parsed.message.text, parsed.status) == ("Hi", ParseStatus.COMPLETE)


def test_the_end_that_the_tokenizer_names_comes_first(tmp_path: Path) -> None:
    config = {"chat_template": "{{ messages }}", "eos_token": "<b>"}
    Tokenizer.train([], 288, ["<a>", "<b>", "<|im_end|>"], config=config).save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 285}')
    assert load_format(Tokenizer.load(tmp_path)).phase_tokens.end == (286, 287, 285)
