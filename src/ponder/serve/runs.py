"""`/v1/runs`: the training runs beneath the folder of `--runs`, read only: curves from a cursor, samples, recipes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ValidationError
from starlette.requests import Request as HttpRequest

from ponder.serve.errors import BadRequest, NotFound
from ponder.serve.http.exchange import state_of
from ponder.serve.run_folders import FoundRun, RunFolders, StageFolder, bucketed, knots
from ponder.types import DataError

router = APIRouter(prefix="/v1/runs")
MOST_KNOTS = 256
RunName = Annotated[str, Query(min_length=1, max_length=1024)]
StageName = Annotated[str, Query(min_length=1, max_length=256)]
StepNumber = Annotated[int, Query(ge=0, le=10**12)]


class StageObject(BaseModel):
    """A stage, as far as it has come. `target_steps` or `target_tokens` is what its recipe goes to; `samples` are the
    steps whose samples can be read; `latest` is its last record."""

    name: str
    done: bool
    step: int
    target_steps: int | None
    target_tokens: int | None
    updated_at: float
    samples: list[int]
    latest: dict[str, float | None]


class RunObject(BaseModel):
    """A run. `live`: a process trains in it."""

    id: str
    object: Literal["run"] = "run"
    live: bool
    stages: list[StageObject]


class RunList(BaseModel):
    object: Literal["list"] = "list"
    data: list[RunObject]
    has_more: bool


class RunRecipeObject(BaseModel):
    object: Literal["run.recipe"] = "run.recipe"
    run: str
    toml: str


class CurveObject(BaseModel):
    """The values of one key. null: not a finite number."""

    key: str
    steps: list[int]
    values: list[float | None]


class RunMetrics(BaseModel):
    """What a reader lacks.

    truncate: the reader must first forget all that it has past this step (-1: everything): the run was resumed from
        there. null: nothing.
    last_step, mark: the cursor of the next request.
    knots: step, tokens, compute and seconds of some records: what turns a step into another position.
    """

    object: Literal["run.metrics"] = "run.metrics"
    live: bool
    done: bool
    truncate: int | None
    last_step: int
    mark: int
    records: int
    knots: list[list[float]]
    curves: list[CurveObject]


class SampleTurn(BaseModel):
    role: str
    thinking: str
    text: str


class SampleObject(BaseModel):
    """One answer that a stage sampled, and its grade."""

    task: str
    level: float
    question: str
    gold: str | None
    thinking: str
    answer: str
    turns: list[SampleTurn] = []
    reward: float
    score: float
    status: str
    why: str
    ended: str
    tokens: int


class SampleList(BaseModel):
    object: Literal["list"] = "list"
    data: list[SampleObject]
    has_more: bool


@router.get("")
def list_runs(
    http: HttpRequest,
    after: Annotated[str, Query(max_length=1024)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> RunList:
    """The runs past the name `after`, by name."""
    found = [run for run in runs_of(http).runs() if run.name > after]
    return RunList(data=[_run(run) for run in found[:limit]], has_more=len(found) > limit)


@router.get("/recipe")
def recipe_of_run(http: HttpRequest, run: RunName) -> RunRecipeObject:
    """The recipe as the run resolved it."""
    try:
        return RunRecipeObject(run=run, toml=runs_of(http).recipe(run))
    except DataError as error:
        raise BadRequest(str(error)) from None


@router.get("/metrics")
def metrics_of_stage(
    http: HttpRequest,
    run: RunName,
    stage: StageName,
    after_step: Annotated[int, Query(ge=-1, le=10**12)] = -1,
    mark: Annotated[int | None, Query(ge=0, le=2**32)] = None,
    points: Annotated[int, Query(ge=3, le=10_000)] = 2_000,
) -> RunMetrics:
    """The records of a stage past a step, each key in at most `points` points. With the `mark` that came with the
    step, a reader whose records were replaced meanwhile is told to forget them."""
    runs = runs_of(http)
    found = runs.run(run)
    place = runs.stage(run, stage)
    try:
        file = runs.metrics(place)
    except DataError as error:
        raise BadRequest(str(error)) from None
    truncate, records = file.since(after_step, mark)
    keys = dict.fromkeys(key for record in records for key in record if key != "step")
    curves = []
    for key in keys:
        drawn = bucketed(records, key, points)
        curves.append(CurveObject(key=key, steps=[step for step, _ in drawn], values=[value for _, value in drawn]))
    return RunMetrics(
        live=found.live and not place.done,
        done=place.done,
        truncate=truncate,
        last_step=int(file.records[-1]["step"]) if file.records else -1,
        mark=file.marks[-1] if file.marks else 0,
        records=len(file.records),
        knots=[list(each) for each in knots(records, MOST_KNOTS)],
        curves=curves,
    )


@router.get("/samples")
def samples_of_step(
    http: HttpRequest,
    run: RunName,
    stage: StageName,
    step: StepNumber,
    after: Annotated[int, Query(ge=0, le=10**6)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SampleList:
    """The answers that a stage sampled at a step, past the first `after`."""
    runs = runs_of(http)
    try:
        records = runs.samples(runs.stage(run, stage), step)
        data = [SampleObject.model_validate(record) for record in records[after : after + limit]]
    except DataError as error:
        raise BadRequest(str(error)) from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BadRequest(f"the samples of step {step} are not as Ponder writes them ({where})") from None
    return SampleList(data=data, has_more=len(records) > after + limit)


def runs_of(http: HttpRequest) -> RunFolders:
    """The runs that the server shows. Raises NotFound where it shows none."""
    runs = state_of(http).runs
    if runs is None:
        raise NotFound("this server shows no runs: start it with `ponder serve --runs FOLDER`", code="no_runs")
    return runs


def _run(run: FoundRun) -> RunObject:
    try:
        return RunObject(id=run.name, live=run.live, stages=[_stage(stage) for stage in run.stages])
    except DataError as error:
        raise BadRequest(f"{run.name}: {error}") from None


def _stage(stage: StageFolder) -> StageObject:
    latest, updated_at = stage.last()
    numbers: dict[str, Any] = {key: value for key, value in latest.items() if isinstance(value, int | float)}
    return StageObject(
        name=stage.name,
        done=stage.done,
        step=int(numbers.get("step", 0)),
        target_steps=stage.target.get("steps"),
        target_tokens=stage.target.get("tokens"),
        updated_at=updated_at,
        samples=list(stage.samples),
        latest={key: value if abs(value) < float("inf") else None for key, value in numbers.items()},
    )
