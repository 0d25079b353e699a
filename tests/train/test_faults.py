"""What goes wrong around a run is said in one typed error, and never spoils what is there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ponder.testing.tiny import ByteTokenizer
from ponder.train import run
from ponder.train.data.feed import DialogueRecipe, Feed
from ponder.train.examples import mix_files
from ponder.train.recipe.sections import MixRecipe
from ponder.types import CheckpointError, DataError, PonderError, RecipeError

pytestmark = pytest.mark.fault

RECIPE = """
[run]
folder = "{folder}"
threads = 1
compile = false
keep = 3
[model]
size = 32
layers = 1
[tokenizer]
vocab_size = 320
text = [{{ source = "a.jsonl" }}]
[pretrain]
tokens = 600
sequence = 32
batch = 4
held_out = 0.0
neighbours = 0
text = [{{ source = "a.jsonl" }}]
[sft]
tokens = 2000
sequence = 128
batch = 4
chunk_steps = 2
mix = [{{ messages = "m.jsonl" }}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its data and its finished run."""
    home = tmp_path_factory.mktemp("home")
    write_data(home)
    run(home / "r.toml")
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    shutil.copytree(finished, tmp_path / "home")
    write_data(tmp_path / "home")
    return tmp_path / "home"


def write_data(home: Path) -> None:
    (home / "r.toml").write_text(RECIPE.format(folder=home / "run"))
    (home / "a.jsonl").write_text("\n".join(f'{{"text": "this is text number {n}"}}' for n in range(30)))
    line = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
    (home / "m.jsonl").write_text(line * 3)


def relocate(home: Path) -> list[str]:
    """The copy's stored recipe names the original's data: make it the copy's."""
    original = (home / "run" / "recipe.toml").read_text().split('source = "')[1].split("/a.jsonl")[0]
    for stored in [home / "run" / "recipe.toml", *home.glob("run/*/data.json")]:
        stored.write_text(stored.read_text().replace(original, str(home)))
    return []


def test_a_finished_run_is_not_run_over(home: Path) -> None:
    relocate(home)
    with pytest.raises(RecipeError, match=r"holds tokenizer, pretrain, sft already: continue with --resume"):
        run(home / "r.toml")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.size=64", "model.size was 32, is 64"),
        ("sft.optim.lr=0.5", "sft.optim.lr was"),
        ("run.seed=5", "run.seed was 0, is 5"),
        ("tokenizer.vocab_size=352", "tokenizer.vocab_size was 320, is 352"),
        ("run.precision=fp32", "run.precision was"),
    ],
)
def test_a_run_does_not_go_on_under_another_recipe(home: Path, override: str, key: str) -> None:
    relocate(home)
    with pytest.raises(RecipeError, match=rf"another recipe: .*{key}"):
        run(home / "r.toml", [override], resume=True)


def test_what_has_no_bearing_on_the_weights_may_change(home: Path) -> None:
    relocate(home)
    result = run(home / "r.toml", ["run.keep=1", "sft.workers=2", "sft.eval_every=100"], resume=True)
    assert result.stages == {}


def test_a_removed_stage_is_run_again_under_its_new_recipe(home: Path) -> None:
    relocate(home)
    shutil.rmtree(home / "run" / "sft")
    result = run(home / "r.toml", ["sft.optim.lr=0.001"], resume=True)
    assert list(result.stages) == ["sft"]


def test_tuning_needs_something_to_start_from(home: Path) -> None:
    relocate(home)
    shutil.rmtree(home / "run" / "sft")
    shutil.rmtree(home / "run" / "pretrain")
    with pytest.raises(RecipeError, match=r"start is 'pretrain', but there is no model in .*run that stage first"):
        run(home / "r.toml", ["run.stages=['sft']"])
    result = run(home / "r.toml", ["run.stages=['sft']", "sft.start=random"])
    assert result.model is not None


def damage_truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def damage_remove(file: Path) -> None:
    file.unlink()


def damage_empty(file: Path) -> None:
    file.write_text("{}")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("optimizer.safetensors", damage_truncate),
        ("optimizer.safetensors", damage_remove),
        ("model.safetensors", damage_truncate),
        ("state.json", damage_empty),
        ("state.json", damage_remove),
        ("config.json", damage_truncate),
    ],
)
def test_a_damaged_checkpoint_names_its_file(home: Path, name: str, damage: Callable[[Path], None]) -> None:
    relocate(home)
    (home / "run" / "sft" / "done.json").unlink()
    (checkpoint,) = (home / "run" / "sft" / "checkpoints").iterdir()
    damage(checkpoint / name)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        run(home / "r.toml", resume=True)


def change_data(home: Path) -> None:
    (home / "m.jsonl").write_text((home / "m.jsonl").read_text().replace("hello", "good day"))


def change_start(home: Path) -> None:
    config = home / "run" / "pretrain" / "model" / "config.json"
    config.write_text(config.read_text() + "\n")


@pytest.mark.parametrize(("change", "file"), [(change_data, "/m.jsonl"), (change_start, "pretrain/model/config.json")])
def test_a_run_does_not_go_on_with_other_data(home: Path, change: Callable[[Path], None], file: str) -> None:
    relocate(home)
    (home / "run" / "sft" / "done.json").unlink()
    change(home)
    with pytest.raises(DataError, match=rf"{file} has changed since sft began: .* remove .*sft/data\.json to go"):
        run(home / "r.toml", resume=True)
    assert (home / "run" / "sft" / "checkpoints").is_dir()
    (home / "run" / "sft" / "data.json").unlink()
    assert run(home / "r.toml", resume=True).stages["sft"].progress.step == 4
    assert file in (home / "run" / "sft" / "data.json").read_text()


def test_what_came_and_went_beside_the_data_is_noticed_too(home: Path) -> None:
    relocate(home)
    shutil.rmtree(home / "run" / "sft")
    (home / "many").mkdir()
    (home / "m.jsonl").rename(home / "many" / "a.jsonl")
    mix = ["sft.mix=[{messages='" + str(home / "many") + "'}]"]
    assert run(home / "r.toml", mix, resume=True).stages["sft"]
    (home / "run" / "sft" / "done.json").unlink()
    (home / "many" / "a.jsonl").rename(home / "many" / "b.jsonl")
    with pytest.raises(DataError, match=r"many/a\.jsonl is gone, .*many/b\.jsonl is new since sft began"):
        run(home / "r.toml", mix, resume=True)


def test_a_task_is_its_file_and_what_that_imports_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "answers.py").write_text("ANSWER = '1'\n")
    (tmp_path / "own.py").write_text(
        "from answers import ANSWER\nfrom ponder.tasks.protocol import Grade, Problem\n"
        "class Own:\n    name = 'own'\n"
        "    def sample(self, rng, level):\n        return Problem(task='own', question='?', answer=ANSWER)\n"
        "    def grade(self, problem, answer):\n        return Grade(score=float(answer == problem.answer))\n"
        "    def same(self, a, b):\n        return a == b\n"
    )
    assert sorted(mix_files((MixRecipe(task=f"{tmp_path}/own.py:Own"), MixRecipe(task="products")))) == [
        str(tmp_path / "answers.py"),
        str(tmp_path / "own.py"),
    ]


def test_a_checkpoint_cut_short_by_a_crash_is_not_taken_for_one(home: Path) -> None:
    relocate(home)
    (home / "run" / "sft" / "done.json").unlink()
    torn = home / "run" / "sft" / "checkpoints" / ".step_00000099.abc.tmp"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    result = run(home / "r.toml", resume=True)
    assert result.stages["sft"].progress.step == 4  # type: ignore[index]


@pytest.mark.parametrize(("file", "line"), [("a.jsonl", '{"txt": 1}'), ("m.jsonl", '{"messages": 3}')])
def test_malformed_data_stops_the_run_with_file_and_line(tmp_path: Path, file: str, line: str) -> None:
    write_data(tmp_path)
    with (tmp_path / file).open("a") as stream:
        stream.write("\n" + line)
    number = (tmp_path / file).read_text().count("\n") + 1
    with pytest.raises(DataError, match=rf"{file}:{number}: (must have a key .text.|.messages. must be)"):
        run(tmp_path / "r.toml")


def test_after_a_start_that_failed_the_same_command_runs(tmp_path: Path) -> None:
    write_data(tmp_path)
    run(tmp_path / "r.toml", ["run.stages=['tokenizer']"])
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    whole = (tmp_path / "m.jsonl").read_text()
    (tmp_path / "m.jsonl").write_text(whole.replace("hello", "hello " * 200))
    only = ["run.stages=['sft']", "sft.start=random"]
    for resume in (False, True):
        with pytest.raises(DataError, match=r"m\.jsonl:1: .* does not fit sft\.sequence"):  # found by the worker
            run(tmp_path / "r.toml", [*only, "sft.optim.lr=0.1"], resume=resume)
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "m.jsonl").write_text(whole)
    assert run(tmp_path / "r.toml", only).model


def test_a_mistyped_task_is_found_before_training(tmp_path: Path) -> None:
    write_data(tmp_path)
    with pytest.raises(PonderError, match="there is no task 'prodcts': did you mean 'products'"):
        run(tmp_path / "r.toml", ["sft.mix=[{task='prodcts'}]"])
    assert not (tmp_path / "run").exists()


def test_a_task_that_breaks_in_the_worker_ends_the_feed_with_its_place(tmp_path: Path) -> None:
    code = tmp_path / "broken.py"
    code.write_text(
        "class Broken:\n    name = 'broken'\n"
        "    def sample(self, rng, level):\n        raise ZeroDivisionError('mine')\n"
        "    def grade(self, problem, answer): ...\n    def same(self, a, b): ...\n"
        "    def demonstrate(self, problem, rng): ...\n"
    )
    tokenizer = ByteTokenizer()
    tokenizer.save(tmp_path / "tokenizer")
    sft = DialogueRecipe(mix=(MixRecipe(task=f"{code}:Broken", direct=0.0),), sequence=64, batch=2, chunk_steps=2)
    with (
        Feed(sft, tmp_path / "tokenizer", seed=0, pad=0) as feed,
        pytest.raises(DataError, match=r"ZeroDivisionError: mine \(.*broken\.py, line 4\)"),
    ):
        feed.next()


def test_what_a_task_prints_does_not_enter_the_data(tmp_path: Path) -> None:
    code = tmp_path / "noisy.py"
    code.write_text(
        "from ponder.tasks.protocol import Demonstration, Problem\n"
        "class Noisy:\n    name = 'noisy'\n    def sample(self, rng, level):\n        print('noise', flush=True)\n"
        "        return Problem(task='noisy', question=str(rng.random()), answer='1')\n"
        "    def grade(self, problem, answer): ...\n    def same(self, a, b): ...\n"
        "    def demonstrate(self, problem, rng):\n        return Demonstration(reasoning='r', answer='1')\n"
    )
    ByteTokenizer().save(tmp_path / "tokenizer")
    sft = DialogueRecipe(mix=(MixRecipe(task=f"{code}:Noisy", direct=0.0),), sequence=64, batch=2, chunk_steps=2)
    with Feed(sft, tmp_path / "tokenizer", seed=0, pad=0) as feed:
        assert feed.next()[0].ids_BT.shape == (2, 64)


def test_any_number_of_workers_and_any_start_give_the_same_batches(tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer")

    def rows(workers: int, start: int, steps: int) -> list[list[list[int]]]:
        mix = (MixRecipe(task="products", max_level=0.1, direct=0.5),)
        sft = DialogueRecipe(mix=mix, sequence=256, batch=2, accumulate=2, chunk_steps=2, workers=workers)
        with Feed(sft, tmp_path / "tokenizer", seed=3, pad=0, start=start) as feed:
            return [[batch.ids_BT.tolist() for batch in feed.next()] for _ in range(steps)]  # type: ignore[misc]

    whole = rows(1, 0, 6)
    assert rows(2, 0, 6) == whole
    assert rows(1, 3, 3) == whole[3:]
    assert rows(2, 3, 3) == whole[3:]
