"""A recipe is TOML read strictly: what is not understood is refused by name, what is not said is derived."""

from pathlib import Path

import pytest

from ponder.train.algorithms import ALGORITHMS
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.algorithms.tokenizer import TokenizerRecipe
from ponder.train.pipeline import load_recipe
from ponder.train.recipe.sections import Optimizer, Recipe, Schedule
from ponder.train.recipe.toml import dump_recipe
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
        ("model.size='big'", "model.size must be of type int, not 'big'"),
        ("model.tie_embeddings=1", "model.tie_embeddings must be of type bool"),
        ("sft.tokens=1.5", "sft.tokens must be of type int"),
        ("sft.optim.schedule=cosin", "one of cosine, linear, wsd"),
        ("run.stages='sft'", "run.stages must be a list"),
        ("sft.mix=[3]", r"sft.mix\[0\] must be a table"),
        ("sft.mix=[{task='products', wight=2.0}]", r"did you mean sft.mix\[0\].weight"),
        ("tokenizer.vocab_size=1000", "multiple of 32"),
        ("model.heads=3", "multiple of model.kv_heads|kv_heads"),
        ("sft.sequence=5000", "over model.max_positions"),
        ("sft.mix=[{weight=1.0}]", "either a task or messages"),
        ("sft.mix=[{task='a', min_level=0.5, max_level=0.2}]", "min_level"),
        ("run.stages=['sft']", "sft.mix is empty"),
        ("nonsense", "section.key=value"),
        ("run.folder.x=3", "is not a table"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_what_to_write(tmp_path: Path, override: str, says: str) -> None:
    overrides = [override, "model.kv_heads=2"] if override == "model.heads=3" else [override]
    with pytest.raises(RecipeError, match=says):
        load(tmp_path, MINIMAL, *overrides)


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
