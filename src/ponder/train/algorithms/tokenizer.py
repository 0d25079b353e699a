"""The stage `tokenizer`: byte-level BPE, learned from raw text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ponder.dialogue.load import train_tokenizer
from ponder.model.checkpoint import atomic_folder
from ponder.tokenizer.files import TOKENIZER_FILE
from ponder.train.data.sources import documents
from ponder.train.loop.fit import Watch
from ponder.train.loop.stage import Algorithm, RunFolder
from ponder.train.recipe.ranges import Width
from ponder.train.recipe.sections import ModelRecipe, Recipe, Section, TextRecipe, no_data, text_problems


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe(Section):
    """Byte-level BPE trained on `text`.

    vocab_size: control tokens included, a multiple of 32.
    """

    vocab_size: Width = 2048
    text: tuple[TextRecipe, ...] = ()

    name = "tokenizer"

    def problems(self, model: ModelRecipe, *, runs: bool) -> Mapping[str, bool]:
        return {
            "tokenizer.vocab_size must be a multiple of 32": self.vocab_size % 32 != 0,
            **text_problems(self.name, self.text),
            no_data(self.name, "text"): runs and not self.text,
        }


class BytePairs(Algorithm[TokenizerRecipe]):
    """Learns the vocabulary from the recipe's texts, each source as often as its `repeat`, into the run folder."""

    section = TokenizerRecipe
    depends = ("run",)
    done = TOKENIZER_FILE

    def run(self, recipe: Recipe, folder: RunFolder, watch: Watch | None) -> None:
        section = recipe.section(TokenizerRecipe)
        texts = (
            text
            for source in section.text
            for text in documents(source, seed=recipe.run.seed)
            for _ in range(source.repeat)
        )
        tokenizer = train_tokenizer(texts, section.vocab_size)
        with atomic_folder(folder.tokenizer, replace=True) as temporary:
            tokenizer.save(temporary)
        print(f"tokenizer: {tokenizer.vocab_size:,} tokens, in {folder.tokenizer}")
