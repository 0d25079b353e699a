"""A recipe is TOML read strictly: what is not understood is refused by name, what is not said is derived."""

import codecs
import math
import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from ponder.train.algorithms import ALGORITHMS
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.algorithms.tokenizer import TokenizerRecipe
from ponder.train.pipeline import load_recipe, run
from ponder.train.recipe.ranges import range_of
from ponder.train.recipe.sections import ModelRecipe, Optimizer, Recipe, RunRecipe, Schedule
from ponder.train.recipe.toml import build, dump_recipe
from ponder.types import RecipeError

MINIMAL = """
[run]
folder = "runs/x"
stages = ["tokenizer"]
[tokenizer]
text = [{ source = "a.txt" }]
"""
RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path, overrides)


def test_one_dial_derives_the_shape_where_nothing_is_said(tmp_path: Path) -> None:
    model = load(tmp_path, MINIMAL).model
    assert (model.size, model.layers, model.heads, model.kv_heads, model.head_dim, model.mlp) == (256, 6, 4, 2, 64, 704)
    wide = load(tmp_path, MINIMAL, "model.size=512", "model.layers=8").model
    assert (wide.layers, wide.heads, wide.kv_heads, wide.mlp) == (8, 8, 4, 1408)


def test_a_larger_model_learns_in_smaller_steps(tmp_path: Path) -> None:
    small, large = (load(tmp_path, MINIMAL, f"model.size={size}").section(SftRecipe).optim.lr for size in (256, 1024))
    assert small is not None
    assert large == pytest.approx(small / 2)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.sise=3", "did you mean model.size"),
        ("sft.optim.leraning_rate=3", "unknown key sft.optim.leraning_rate"),
        ("modle.size=3", "did you mean model"),
        ("model.size='big'", r"model.size must be of type int \(got 'big'\)"),
        ("model.tie_embeddings=1", "model.tie_embeddings must be of type bool"),
        ("sft.tokens=1.5", "sft.tokens must be of type int"),
        ("sft.optim.schedule=cosin", "one of cosine, linear, wsd"),
        ("run.stages='sft'", "run.stages must be a list"),
        ('run.folder="a\\u0000b"', "run.folder holds a zero byte"),
        ("sft.start=' '", "sft.start is empty"),
        ("tokenizer.text=[{source=''}]", r"tokenizer.text\[0\].source is empty"),
        ("pretrain.text=[{source=' '}]", r"pretrain.text\[0\].source is empty"),
        ("sft.mix=[3]", r"sft.mix\[0\] must be a table"),
        ("sft.mix=[{task='products', wight=2.0}]", r"did you mean sft.mix\[0\].weight"),
        ("tokenizer.vocab_size=1000", "multiple of 32"),
        ("model.heads=3", "multiple of model.kv_heads|kv_heads"),
        ("sft.sequence=5000", "at most model.max_positions"),
        ("sft.mix=[{weight=1.0}]", "either a task or messages"),
        ("sft.mix=[{task='a', min_level=0.5, max_level=0.2}]", "min_level"),
        ("run.stages=['sft']", "sft.mix is empty"),
        ("nonsense", "section.key=value"),
        ("run.folder.x=3", "is not a table"),
        ("run.folder=''", "run.folder is empty"),
        ("run.folder='/tmp/l\udce4uft'", r"run\.folder is not UTF-8 \('/tmp/l\\udce4uft'\)"),
        ('run.folder="runs', "not valid TOML"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_what_to_write(tmp_path: Path, override: str, says: str) -> None:
    overrides = [override, "model.kv_heads=2"] if override == "model.heads=3" else [override]
    with pytest.raises(RecipeError, match=says):
        load(tmp_path, MINIMAL, *overrides)


NOT_FINITE = ("nan", "inf", "-inf")
IMPOSSIBLE = {
    "run.seed": ("-1",),
    "run.threads": ("-1",),
    "run.keep": ("0",),
    "run.checkpoint_minutes": ("-1.0", *NOT_FINITE),
    "model.size": ("0", "-64", str(10**30)),
    "model.layers": ("0",),
    "model.heads": ("0",),
    "model.max_positions": ("0",),
    "model.rope_theta": ("0.0", "1e300", *NOT_FINITE),
    "tokenizer.vocab_size": ("0", "-32"),
    "pretrain.held_out": ("-0.1", "1.0", *NOT_FINITE),
    "sft.tokens": ("0",),
    "sft.minutes": ("-1.0", *NOT_FINITE),
    "sft.batch": ("0", "-4", str(10**12)),
    "sft.accumulate": ("0",),
    "sft.eval_every": ("-1",),
    "sft.workers": ("0",),
    "sft.direct": ("1.5", "nan"),
    "sft.optim.lr": ("0.0", "-1.0", *NOT_FINITE),
    "sft.optim.muon_lr": ("0.0", "-1.0", *NOT_FINITE),
    "sft.optim.warmup": ("1.5", "-0.1", *NOT_FINITE),
    "sft.optim.decay": ("1.5", "nan"),
    "sft.optim.final": ("-1.0", "nan"),
    "sft.optim.weight_decay": ("-0.1", *NOT_FINITE),
    "sft.optim.beta1": ("1.0", "-0.1", "nan"),
    "sft.optim.beta2": ("1.0", "1.5", "nan"),
    "sft.optim.clip": ("-1.0", *NOT_FINITE),
    "sft.lora.rank": ("-1",),
    "sft.lora.alpha": ("0.0", "-1.0", "1e300", *NOT_FINITE),
    "grpo.temperature": ("0.0", "-1.0", *NOT_FINITE),
    "grpo.clip_low": ("-0.1", "1.1", "nan"),
    "grpo.clip_high": ("-0.1", *NOT_FINITE),
    "grpo.kl": ("-0.1", *NOT_FINITE),
    "rejection.per_prompt": ("0",),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in IMPOSSIBLE.items() for value in values])
def test_a_number_out_of_its_range_is_refused_with_its_key_and_the_range(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{re.escape(key)} must be a number (above|of at least) .*\(got "):
        load(tmp_path, MINIMAL, f"{key}={value}")


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("{task='gcd', weight=nan}", r"sft\.mix\[1\]\.weight"),
        ("{task='gcd', weight=0.0}", r"sft\.mix\[1\]\.weight"),
        ("{task='gcd', earlier=2.0}", r"sft\.mix\[1\]\.earlier"),
        ("{task='gcd', max_level=inf}", r"sft\.mix\[1\]\.max_level"),
    ],
)
def test_a_number_in_a_list_of_tables_is_named_by_its_place(tmp_path: Path, entry: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"^{key} must be a number"):
        load(tmp_path, MINIMAL, f"sft.mix=[{{task='gcd'}}, {entry}]")


def test_the_ends_of_a_range_are_allowed(tmp_path: Path) -> None:
    ends = (
        "sft.optim.warmup=1.0",
        "sft.optim.warmup=0.0",
        "sft.optim.clip=0.0",
        "sft.optim.beta1=0.0",
        "run.threads=0",
    )
    for end in ends:
        load(tmp_path, MINIMAL, end)


def numbers(table: type, name: str) -> Iterator[tuple[str, object]]:
    """The key and the type, annotations included, of every number that a table of a recipe may hold."""
    for key in (each.name for each in fields(table)):
        hint, plain = typing.get_type_hints(table, include_extras=True)[key], typing.get_type_hints(table)[key]
        kinds = {plain, *typing.get_args(plain)}
        if kinds & {int, float}:
            yield f"{name}.{key}", hint
        for inner in kinds:
            if is_dataclass(inner) and isinstance(inner, type):
                yield from numbers(inner, f"{name}.{key}")


def test_every_number_of_every_section_has_a_range() -> None:
    tables = {"run": RunRecipe, "model": ModelRecipe, **{name: each.section for name, each in ALGORITHMS.items()}}
    found = [pair for name, table in tables.items() for pair in numbers(table, name)]
    assert len(found) > 100
    assert [key for key, hint in found if range_of(hint) is None] == []


WRONG = {  # values that no field of the type takes
    int: (1.5, True, "1", "", [1], {}, math.nan),
    float: (True, "1.0", "", [1.0], {}, math.nan, math.inf),
    str: (1, 1.5, True, ["a"], {}, "a\0b"),
    bool: (0, 1, 1.0, "true", [True], {}),
}


def plain_fields(table: type, prefix: str) -> Iterator[tuple[type, str, type]]:
    """(table, key, type) of all fields that hold one plain value or a choice, those of tables in tables too."""
    for key, hint in typing.get_type_hints(table).items():
        if key not in {each.name for each in fields(table)}:
            continue
        kinds = [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and kind is not type(None)]
        for kind in kinds:
            if is_dataclass(kind):
                yield from plain_fields(kind, f"{prefix}.{key}")
            elif (kind in WRONG or issubclass(kind, StrEnum)) and typing.get_origin(hint) is not tuple:
                yield table, f"{prefix}.{key}", kind


def test_every_field_refuses_every_value_of_another_type_by_its_key() -> None:
    tables = {"run": RunRecipe, "model": ModelRecipe, **{name: each.section for name, each in ALGORITHMS.items()}}
    found = {each for name, table in tables.items() for each in plain_fields(table, name)}
    assert len(found) > 150
    for table, key, kind in found:
        name = key.rpartition(".")[2]
        needed = {each.name: "x" for each in fields(table) if each.default is each.default_factory is MISSING}
        allowed = range_of(typing.get_type_hints(table, include_extras=True)[name])
        for wrong in WRONG.get(kind, (0, True, "", "other", ["adamw"], {})):
            if isinstance(wrong, float) and kind is float:
                assert allowed is not None
                assert not allowed.holds(wrong), (key, wrong)
            else:
                with pytest.raises(RecipeError, match=rf"{re.escape(name)} (must be|is|holds) "):
                    build(table, {**needed, name: wrong}, "recipe.toml")


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (
            codecs.BOM_UTF16_LE + MINIMAL.encode("utf-16-le"),
            r"toml: not UTF-8 \(its byte order mark is .* UTF-16",
        ),
        ("# Grüße\n".encode("latin-1") + MINIMAL.encode(), r"recipe\.toml:1: not UTF-8"),
        (MINIMAL.encode() + b"x = 1" + b"0" * 5000, "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
    ],
)
def test_a_recipe_in_another_encoding_or_of_absurd_values_is_refused_in_words(
    tmp_path: Path, written: bytes, says: str
) -> None:
    (tmp_path / "recipe.toml").write_bytes(written)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize("breaks", ["\r\n", "\r", "\n"])
def test_a_recipe_of_any_editor_is_read(tmp_path: Path, breaks: str) -> None:
    (tmp_path / "recipe.toml").write_bytes(codecs.BOM_UTF8 + MINIMAL.replace("\n", breaks).encode())
    assert load_recipe(tmp_path / "recipe.toml").run.folder == "runs/x"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", "", "meta"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path, device: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(MINIMAL)
    with pytest.raises(RecipeError, match=r"run\.device must be a device of this machine"):
        run(path, [f"run.device='{device}'", f"run.folder='{tmp_path / 'run'}'"])
    assert not (tmp_path / "run").exists()


def test_a_missing_key_and_broken_toml_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml: run is missing"):
        load(tmp_path, "[model]\nsize = 64")
    with pytest.raises(RecipeError, match=r"recipe\.toml: not valid TOML"):
        load(tmp_path, "[run")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_overrides_are_toml_values_or_bare_words(tmp_path: Path) -> None:
    recipe = load(
        tmp_path, MINIMAL, "sft.optim.schedule=linear", "sft.optim.name='muon'", "run.seed=7", "sft.minutes=2"
    )
    assert recipe.section(SftRecipe).optim.schedule is Schedule.LINEAR
    assert recipe.section(SftRecipe).optim.name is Optimizer.MUON
    assert recipe.run.seed == 7
    assert recipe.section(SftRecipe).minutes == 2.0


def test_an_include_is_overlaid_table_by_table_and_list_by_list(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(MINIMAL + "[model]\nsize = 128\nlayers = 3\n")
    recipe = load(tmp_path, 'include = "base.toml"\n[model]\nlayers = 2\n[run]\nseed = 5\n')
    assert (recipe.model.size, recipe.model.layers) == (128, 2)
    assert (recipe.run.folder, recipe.run.seed) == ("runs/x", 5)
    replaced = load(tmp_path, 'include = "base.toml"\n[tokenizer]\ntext = [{ source = "b.txt" }]\n')
    assert [text.source for text in replaced.section(TokenizerRecipe).text] == ["b.txt"]


def test_a_recipe_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="includes itself"):
        load(tmp_path, 'include = "recipe.toml"')


def test_data_beside_the_recipe_is_found_from_anywhere_but_stage_names_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "pretrain").mkdir()
    recipe = load(tmp_path, MINIMAL + '[sft]\nstart = "pretrain"\n')
    assert recipe.section(TokenizerRecipe).text[0].source == str(tmp_path / "a.txt")
    assert recipe.section(SftRecipe).start == "pretrain"


def test_a_task_in_a_file_beside_the_recipe_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    recipe = load(tmp_path, MINIMAL, "tokenizer.text=[{source='task:own.py:Own'}]")
    assert (
        recipe.section(TokenizerRecipe).text[0].source == "task:own.py:Own"
    )  # an override's paths are of the working directory
    recipe = load(
        tmp_path,
        '[run]\nfolder = "x"\n[tokenizer]\ntext = [{ source = "task:own.py:Own" }]\n'
        '[pretrain]\ntext = [{ source = "a.txt" }]\n[sft]\nmix = [{ task = "own.py:Own" }, { task = "gcd" }]\n',
    )
    assert recipe.section(TokenizerRecipe).text[0].source == f"task:{tmp_path}/own.py:Own"
    assert [entry.task for entry in recipe.section(SftRecipe).mix] == [f"{tmp_path}/own.py:Own", "gcd"]


def test_direct_of_the_stage_holds_where_the_mix_says_nothing(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL, "sft.direct=0.3", "sft.mix=[{task='a'}, {task='b', direct=0.0}]")
    assert [entry.direct for entry in recipe.section(SftRecipe).mix] == [0.3, 0.0]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_shipped_recipe_loads_and_its_resolved_form_reads_back_equal(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert load(tmp_path, dump_recipe(recipe)) == recipe
    assert set(recipe.run.stages) <= ALGORITHMS.keys()


def test_a_tokenizer_needs_a_mix_to_draw_from(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(MINIMAL)
    with pytest.raises(RecipeError, match=r"tokenizer.samples is 10, but sft.mix is empty"):
        run(path, ["tokenizer.text=[]", "tokenizer.samples=10", f"run.folder={tmp_path / 'run'}"])
