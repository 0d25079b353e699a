"""The stage `tokenizer`: byte-level BPE, learned from raw text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from ponder.dialogue.load import train_tokenizer
from ponder.model.checkpoint import atomic_folder
from ponder.tokenizer.files import TOKENIZER_FILE
from ponder.train.algorithms.sft import SftRecipe
from ponder.train.data.sources import documents
from ponder.train.examples import mix_texts
from ponder.train.loop.stage import Algorithm, RunFolder
from ponder.train.loop.world import world
from ponder.train.recipe.ranges import CountOrZero, Width
from ponder.train.recipe.sections import ModelRecipe, Recipe, Section, TextRecipe, no_data, text_problems
from ponder.types import RecipeError


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe(Section):
    """Byte-level BPE trained on `text`, and on what the stage `sft` will teach.

    vocab_size: control tokens included, a multiple of 32.
    samples: how many problems and dialogues are drawn from sft.mix, by its weights.
    """

    vocab_size: Width = 2048
    text: tuple[TextRecipe, ...] = ()
    samples: CountOrZero = 0

    name = "tokenizer"

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            "tokenizer.vocab_size must be a multiple of 32": self.vocab_size % 32 != 0,
            **text_problems(self.name, self.text),
            no_data(self.name, "text"): runs and not self.text and not self.samples,
        }


class BytePairs(Algorithm[TokenizerRecipe]):
    """Learns the vocabulary from the recipe's texts, each source as often as its `repeat`, and `sft.mix`."""

    section = TokenizerRecipe
    depends = ("run",)
    done = TOKENIZER_FILE

    def run(self, recipe: Recipe, folder: RunFolder) -> None:
        with world().together():
            if world().first:
                self._learn(recipe, folder)

    def _learn(self, recipe: Recipe, folder: RunFolder) -> None:
        section, taught = recipe.section(TokenizerRecipe), recipe.section(SftRecipe)
        if section.samples and not taught.mix:
            raise RecipeError(
                f"tokenizer.samples is {section.samples}, but sft.mix is empty: name tasks there, or set it to 0"
            )
        texts = (
            text
            for source in section.text
            for text in documents(source, seed=recipe.run.seed)
            for _ in range(source.repeat)
        )
        drawn = mix_texts(taught.mix, section.samples, seed=recipe.run.seed)
        tokenizer = train_tokenizer(chain(texts, drawn), section.vocab_size)
        with atomic_folder(folder.tokenizer, replace=True) as temporary:
            tokenizer.save(temporary)
        print(f"tokenizer: {tokenizer.vocab_size:,} tokens, in {folder.tokenizer}")
