"""What a recipe leaves open is derived, what is impossible refused: a resolved recipe leaves nothing to chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ponder.model.config import PROJECTIONS
from ponder.train.recipe.sections import (
    GrpoRecipe,
    MixRecipe,
    ModelRecipe,
    Objective,
    OptimRecipe,
    Recipe,
    Stage,
    StageRecipe,
)
from ponder.types import RecipeError


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every derived value filled in, checked for impossible ones (`RecipeError`)."""
    model = _resolve_model(recipe.model)
    sft = replace(recipe.sft, optim=_resolve_optim(recipe.sft.optim, model.size))
    sft = replace(sft, mix=tuple(replace(m, direct=sft.direct if m.direct is None else m.direct) for m in sft.mix))
    pretrain = replace(recipe.pretrain, optim=_resolve_optim(recipe.pretrain.optim, model.size))
    resolved = replace(recipe, model=model, pretrain=pretrain, sft=sft, grpo=_resolve_grpo(recipe.grpo, model.size))
    _check(resolved)
    return resolved


def _resolve_model(model: ModelRecipe) -> ModelRecipe:
    """256 gives 6 layers, 4 heads of 64 over 2, an MLP of 704: 5M parameters at a vocabulary of 2,048."""
    layers, heads, kv_heads, head_dim, mlp = model.shape()
    return replace(model, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, mlp=mlp)


def _resolve_grpo(grpo: GrpoRecipe, size: int) -> GrpoRecipe:
    tokens = grpo.steps * grpo.prompts * grpo.samples * grpo.max_tokens
    if grpo.tokens not in (0, tokens):
        raise RecipeError(f"grpo.tokens is {grpo.tokens}: leave it out, grpo.steps says how long the stage is")
    return replace(grpo, tokens=tokens, optim=_resolve_optim(grpo.optim, size, full=1e-4))


def _resolve_optim(optim: OptimRecipe, size: int, *, full: float = 3e-3) -> OptimRecipe:
    """Smaller models bear larger steps: `full` at 256, falling with the square root of the hidden size."""
    lr = optim.lr or round(full * (256 / size) ** 0.5, 6)
    return replace(optim, lr=lr, muon_lr=optim.muon_lr or 2 * lr)


def _check(recipe: Recipe) -> None:
    """Refuse what could only fail later, or mean something else than was written."""
    model = recipe.model
    _, heads, kv_heads, head_dim, _ = model.shape()
    problems: dict[str, bool] = {
        f"run.stages is empty: name at least one of {', '.join(Stage)}": not recipe.run.stages,
        "model.heads must be a multiple of model.kv_heads": heads % kv_heads != 0,
        "model.head_dim must be even": head_dim % 2 != 0,
        "tokenizer.vocab_size must be a multiple of 32": recipe.tokenizer.vocab_size % 32 != 0,
        "run.keep must be at least 1": recipe.run.keep < 1,
        "sft.workers must be at least 1": recipe.sft.workers < 1,
        "sft.chunk_steps must be at least 1": recipe.sft.chunk_steps < 1,
        "pretrain.held_out must lie in [0, 0.5]": not 0 <= recipe.pretrain.held_out <= 0.5,
        "run.stages names a stage twice": len(set(recipe.run.stages)) != len(recipe.run.stages),
    }
    stages: Mapping[Stage, StageRecipe] = {
        Stage.PRETRAIN: recipe.pretrain,
        Stage.SFT: recipe.sft,
        Stage.GRPO: recipe.grpo,
    }
    for name, stage in stages.items():
        positive = min(stage.tokens, stage.sequence, stage.batch, stage.accumulate) >= 1
        problems[f"{name}: tokens, sequence, batch and accumulate must be at least 1"] = not positive
        concerned = name is not Stage.GRPO or name in recipe.run.stages  # its default is longer than many a small model
        problems[f"{name}.sequence is {stage.sequence}, over model.max_positions"] = (
            concerned and stage.sequence > model.max_positions
        )
        problems[f"{name}.lora.rank must be 0 (all weights train) or more"] = stage.lora.rank < 0
        unknown = sorted(set(stage.lora.targets) - set(PROJECTIONS))
        problems[f"{name}.lora.targets: {unknown or 'empty'}; choose from {', '.join(PROJECTIONS)}"] = bool(
            unknown or not stage.lora.targets
        )
        problems[f"{name}.lora needs a model to stand beside: {name}.start is random"] = (
            stage.lora.rank > 0 and stage.start == "random"
        )
        shares = (stage.optim.warmup, stage.optim.decay, stage.optim.final)
        problems[f"{name}.optim: warmup, decay and final must lie in [0, 1]"] = not all(0 <= s <= 1 for s in shares)
    problems |= (
        _mix_problems("sft", recipe.sft.mix) | _mix_problems("grpo", recipe.grpo.mix) | _grpo_problems(recipe.grpo)
    )
    wanted = {
        "tokenizer.text": (Stage.TOKENIZER, bool(recipe.tokenizer.text)),
        "pretrain.text": (Stage.PRETRAIN, bool(recipe.pretrain.text)),
        "sft.mix": (Stage.SFT, bool(recipe.sft.mix)),
        "grpo.mix": (Stage.GRPO, bool(recipe.grpo.mix)),
    }
    for key, (stage_name, given) in wanted.items():
        problems[f"{key} is empty: the stage {stage_name} has no data"] = stage_name in recipe.run.stages and not given
    for text, wrong in problems.items():
        if wrong:
            raise RecipeError(text)


def _mix_problems(stage: str, mixes: Sequence[MixRecipe]) -> dict[str, bool]:
    problems: dict[str, bool] = {}
    for index, mix in enumerate(mixes):
        name = f"{stage}.mix[{index}]"
        problems[f"{name} needs either a task or messages"] = bool(mix.task) == bool(mix.messages)
        problems[f"{name}.weight must be over 0"] = mix.weight <= 0
        problems[f"{name}.direct must lie in [0, 1]"] = not 0 <= (mix.direct or 0) <= 1
        problems[f"{name}.earlier must lie in [0, 1]"] = not 0 <= mix.earlier <= 1
        levels_right = 0 <= mix.min_level <= mix.max_level <= 1
        problems[f"{name}: levels must satisfy 0 ≤ min_level ≤ max_level ≤ 1"] = not levels_right
    return problems


def _grpo_problems(grpo: GrpoRecipe) -> dict[str, bool]:
    """The mix is one of tasks that are answered; what only demonstrations have is refused, not ignored."""
    least = {"steps": 1, "prompts": 1, "samples": 2, "max_tokens": 1, "minibatches": 1, "epochs": 1, "per_prompt": 1}
    least |= {"patience": 1, "redraws": 0, "watch_problems": 0}
    problems = {f"grpo.{key} must be at least {low}": getattr(grpo, key) < low for key, low in least.items()}
    for index, mix in enumerate(grpo.mix):
        problems[f"grpo.mix[{index}]: messages have no grade, name a task"] = bool(mix.messages)
        inapplicable = mix.direct is not None or mix.earlier != 0
        problems[f"grpo.mix[{index}]: direct and earlier do not apply; for direct answers set grpo.thinking = 0"] = (
            inapplicable
        )
    return problems | {
        "grpo.accumulate does not apply: there are as many micro-batches as the answers fill": grpo.accumulate != 1,
        "grpo.temperature must be over 0: rollouts are sampled": grpo.temperature <= 0,
        "grpo.thinking must be at least 0": (grpo.thinking or 0) < 0,
        f"grpo.overlong must lie in [0, max_tokens], [0, {grpo.max_tokens}]": not 0 <= grpo.overlong <= grpo.max_tokens,
        "grpo.clip_low must lie in [0, 1], clip_high in [0, …)": not 0 <= grpo.clip_low <= 1 or grpo.clip_high < 0,
        "grpo.kl must be at least 0": grpo.kl < 0,
        "grpo.minibatches must not exceed grpo.prompts": grpo.minibatches > grpo.prompts,
        "grpo.kl does not apply to the objective rejection": grpo.objective is Objective.REJECTION and grpo.kl > 0,
    }
