"""Special tokens from every file in which they may stand, read as transformers reads them, and exported unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.tokenizer import Tokenizer, TokenizerError

TOKENS = ["<begin>", "<end>", "<|im_end|>", "<think>"]
FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
QWEN = Path(__file__).parents[1] / "golden" / "families" / "qwen3"


def folder_of(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    """A tokenizer of 288 ids, the last four of them control tokens (`<think>` not special), with the files given."""
    tokenizer = Tokenizer.train(["hello"], 288, TOKENS)
    spec = {**tokenizer.spec}
    spec["added_tokens"] = [{**token, "special": token["content"] != "<think>"} for token in spec["added_tokens"]]
    for name, content in {"tokenizer": spec, "tokenizer_config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    return {"added_tokens_decoder": {str(288 + place): {**FLAGS, **token} for place, token in enumerate(tokens)}}


BASE = {"tokenizer_class": "PreTrainedTokenizerFast"}
FOLDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "config_alone": ({"bos_token": "<begin>", "eos_token": "<end>"}, {}),
    "config_with_objects": ({"eos_token": {"__type": "AddedToken", "content": "<end>", **FLAGS}}, {}),
    "map_alone": ({}, {"special_tokens_map": {"bos_token": "<begin>", "eos_token": "<end>"}}),
    "map_with_objects": ({}, {"special_tokens_map": {"eos_token": {"content": "<end>", **FLAGS}, "unk_token": "<u>"}}),
    "map_over_config": ({"eos_token": "<end>"}, {"special_tokens_map": {"eos_token": "<|im_end|>"}}),
    "decoder_over_map": (
        {"eos_token": "<end>", **decoder({"content": "<new>", "special": True}, {"content": "<plain>"})},
        {"special_tokens_map": {"eos_token": "<|im_end|>"}},
    ),
    "added_tokens": (
        {"eos_token": "<stop>"},
        {"added_tokens": {"<tool>": 289, "<stop>": 288, "<end>": 285}, "special_tokens_map": {"pad_token": "<end>"}},
    ),
    "named_and_nowhere": ({"pad_token": "<pad>", "additional_special_tokens": ["<a>", "<end>"]}, {}),
    "listed_in_the_map": ({}, {"special_tokens_map": {"additional_special_tokens": ["<think>", "<a>"]}}),
    "named_and_ordinary": ({"eos_token": "hel"}, {}),
    "flags_of_the_config": (
        {"added_tokens_decoder": {"287": {**FLAGS, "content": "<think>", "lstrip": True, "special": True}}},
        {},
    ),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_has_the_tokens_that_transformers_finds(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config, files = FOLDERS[name]
    folder = folder_of(tmp_path, BASE | config, **files)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    assert dict(ours.control) == theirs.get_added_vocab()
    keys = ("bos_token", "eos_token", "unk_token", "pad_token")
    assert {key: ours.special_name(key) for key in keys} == {key: theirs.special_tokens_map.get(key) for key in keys}
    assert ours.ends == (() if theirs.eos_token_id is None else (theirs.eos_token_id,))
    for text in ("a <think> b", "<end><think>h"):
        ids = [i for id, piece in ours.split_control(text) for i in ([id] if id is not None else ours.encode(piece))]
        assert ids == theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parity
@pytest.mark.parametrize("name", FOLDERS)
def test_saving_leaves_every_flag_as_it_was(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config, files = FOLDERS[name]
    Tokenizer.load(folder_of(tmp_path, BASE | config, **files)).save(tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(path) for path in (tmp_path, tmp_path / "out"))
    assert {id: repr(token) for id, token in before.added_tokens_decoder.items()} == {
        id: repr(token) for id, token in after.added_tokens_decoder.items()
    }
    assert sorted(before.all_special_tokens) == sorted(after.all_special_tokens)
    assert before.special_tokens_map == after.special_tokens_map
    ids = list(before.added_tokens_decoder)
    assert before.decode(ids, skip_special_tokens=True) == after.decode(ids, skip_special_tokens=True)


def test_a_family_is_saved_with_the_flags_of_its_file(tmp_path: Path) -> None:
    Tokenizer.load(QWEN).save(tmp_path)
    before, after = (json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) for folder in (QWEN, tmp_path))
    assert before["added_tokens"] == after["added_tokens"]
    assert "additional_special_tokens" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_a_token_that_only_its_name_makes_special_is_out_of_reach_of_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder_of(tmp_path, {}, special_tokens_map={"eos_token": "hel"}))
    id = tokenizer.control_id("hel")
    assert id not in tokenizer.encode("hello hell")
    assert tokenizer.decode(tokenizer.encode("hello hell")) == "hello hell"
    assert id in Tokenizer.load(folder_of(tmp_path, {}, special_tokens_map={})).encode("hel")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("tokenizer_config", {"eos_token": 5}, r"key 'eos_token' must declare a token .*got 5"),
        ("tokenizer_config", {"added_tokens_decoder": [1]}, r"key 'added_tokens_decoder'"),
        ("tokenizer_config", {"added_tokens_decoder": {"x": "<a>"}}, r"key 'added_tokens_decoder'"),
        ("tokenizer_config", decoder({"content": 3}), r"key 'added_tokens_decoder'"),
        ("tokenizer_config", {"chat_template": 5}, r"key 'chat_template'"),
        ("tokenizer_config", {"chat_template": [{"name": "default"}]}, r"key 'chat_template'"),
        ("tokenizer_config", {"chat_template": [{"name": "default", "template": None}]}, r"key 'chat_template'"),
        ("special_tokens_map", {"eos_token": {"text": "<end>"}, "bos_token": [3]}, r"key 'bos_token'"),
        ("added_tokens", {"<a>": "288"}, r"key '<a>' must be an id"),
        ("generation_config", {"eos_token_id": "<end>"}, r"key 'eos_token_id' must be a token id"),
        ("config", {"eos_token_id": [True]}, r"key 'eos_token_id' must be a token id"),
    ],
)
def test_what_declares_no_token_is_named(file: str, content: dict[str, Any], why: str, tmp_path: Path) -> None:
    folder_of(tmp_path, {})
    (tmp_path / f"{file}.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match=rf"{file}\.json: {why}"):
        Tokenizer.load(tmp_path)


@pytest.mark.fault
def test_an_id_that_is_not_the_tokens_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="'<a>' the id 300, but by its place in the list it is 288"):
        Tokenizer.load(folder_of(tmp_path, {}, added_tokens={"<a>": 300}))


@pytest.mark.fault
def test_a_byte_of_text_cannot_be_special(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="the token 'h' is a byte of ordinary text"):
        Tokenizer.load(folder_of(tmp_path, {"eos_token": "h"}))


@pytest.mark.fault
@pytest.mark.parametrize(
    "file",
    [
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("config.json", "generation_config.json", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"),
    ],
)
def test_a_file_that_is_not_utf8_is_named(file: str, tmp_path: Path) -> None:
    folder_of(tmp_path, {})
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / file).write_bytes('{"für": ""}'.encode("latin-1"))
    with pytest.raises(TokenizerError, match=Path(file).name):
        Tokenizer.load(tmp_path)


def test_templates_stand_in_any_of_three_places(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]
    folder = folder_of(tmp_path, {"chat_template": listed})
    assert dict(Tokenizer.load(folder).chat_templates) == {"default": "A", "tool_use": "B"}
    (folder / "chat_template.jinja").write_text("C")
    assert dict(Tokenizer.load(folder).chat_templates) == {"default": "C"}
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("D")
    loaded = Tokenizer.load(folder)
    assert dict(loaded.chat_templates) == {"default": "C", "rag": "D"}
    loaded.save(folder / "again")
    assert Tokenizer.load(folder / "again").chat_templates == loaded.chat_templates
    transformers = pytest.importorskip("transformers")
    for path in (folder, folder / "again"):
        assert transformers.AutoTokenizer.from_pretrained(path).chat_template == {"default": "C", "rag": "D"}


def test_every_declared_end_is_known(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"eos_token": "<|im_end|>"}, generation_config={"eos_token_id": [285, 286, 999]})
    (folder / "config.json").write_text('{"eos_token_id": 284}')
    assert Tokenizer.load(folder).ends == (286, 284, 285)
