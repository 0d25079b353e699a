"""What a run does: TOML, read strictly into frozen dataclasses, with what is left open derived."""

from ponder.train.recipe.sections import (
    LoraRecipe,
    MixRecipe,
    ModelRecipe,
    OptimRecipe,
    Recipe,
    RunRecipe,
    Section,
    StageRecipe,
    TextRecipe,
    resolve,
)

__all__ = [
    "LoraRecipe",
    "MixRecipe",
    "ModelRecipe",
    "OptimRecipe",
    "Recipe",
    "RunRecipe",
    "Section",
    "StageRecipe",
    "TextRecipe",
    "resolve",
]
