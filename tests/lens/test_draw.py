"""The page holds all it needs, says what it leaves out, and lets no text become markup."""

import base64
import hashlib
import json
import math
import re
import zlib
from typing import Any

import numpy as np
import pytest

from ponder.lens.draw import draw, read_only
from ponder.model.transformer import Transformer
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.types import InvalidRequest, Origin, Phase, Segment

TOKENIZER = ByteTokenizer()
TYPES = {"f4": np.float32, "u1": np.uint8, "i4": np.int32}


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(vocab_size=TOKENIZER.vocab_size, max_positions=1024)


def said(prompt: str, thought: str, answer: str = "", forced: int = 0) -> Segment:
    """A context whose last `forced` thinking tokens were put in."""
    think, spoken = TOKENIZER.encode(thought), TOKENIZER.encode(answer)
    return Segment(
        prompt_ids=tuple(TOKENIZER.encode(prompt)),
        ids=(*think, *spoken),
        logprobs=(-1.0,) * len(think + spoken),
        phases=(Phase.THINK,) * len(think) + (Phase.ANSWER,) * len(spoken),
        origins=(Origin.SAMPLED,) * (len(think) - forced) + (Origin.FORCED,) * forced + (Origin.SAMPLED,) * len(spoken),
        weights_version=0,
    )


def data_of(page: str) -> dict[str, Any]:
    (body,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(body)


def column(stored: dict[str, Any]) -> np.ndarray:
    data = zlib.decompress(base64.b64decode(stored["data"]))
    return np.frombuffer(data, TYPES[stored["type"]]).reshape(stored["shape"])


def drawn(model: Transformer, *segments: Segment, **options: Any) -> str:
    return draw(model, TOKENIZER, segments, **{"title": "a question", "name": "tiny", **options})


def test_an_answer_is_told_token_by_token(model: Transformer) -> None:
    data = data_of(drawn(model, said("1+1?", "two or", "2", forced=2)))
    (context,) = data["contexts"]
    spelled = [data["tokens"][str(id)] for id in column(context["ids"])]
    assert "".join(spelled) == "1+1?two or2"
    kinds = [data["kinds"][kind] for kind in column(context["kinds"])]
    assert kinds == ["prompt"] * 4 + ["think"] * 6 + ["answer"]
    assert (context["begin"], context["forced"]) == (4, [8, 9])
    assert column(context["top_ids"]).shape == (11, 8)
    assert column(context["layer_ids"]).shape == (model.config.num_layers + 1, 11)
    assert len(context["heads"]) == model.config.num_layers
    assert column(data["near"]["ids"]).shape == (len(data["near"]["of"]), 6)


def test_how_far_the_sampled_numbers_are_is_said(model: Transformer) -> None:
    (note,) = data_of(drawn(model, said("1+1?", "two", "2")))["notes"]
    assert re.fullmatch(
        r"All numbers are computed in float32\. .* the 4 tokens .* differ from these by \S+ at most\.", note
    )
    assert data_of(drawn(model, read_only(TOKENIZER.encode("read"))))["notes"] == []


def test_a_token_put_in_without_a_number_is_left_out_of_that(model: Transformer) -> None:
    segment = said("1+1?", "two", "2")
    branched = Segment(
        prompt_ids=segment.prompt_ids,
        ids=segment.ids,
        logprobs=(math.nan, *segment.logprobs[1:]),
        phases=segment.phases,
        origins=segment.origins,
        weights_version=0,
    )
    assert "nan" not in data_of(drawn(model, branched))["notes"][0]


def test_a_folded_thought_shows_each_context_and_its_state_as_thought(model: Transformer) -> None:
    first, last = said("sum?", "a long thought [s]"), said("sum?[s]", "so", "6")
    data = data_of(drawn(model, first, last))
    kinds = [[data["kinds"][kind] for kind in column(context["kinds"])] for context in data["contexts"]]
    assert kinds[0] == ["prompt"] * 4 + ["think"] * 18
    assert kinds[1] == ["prompt"] * 4 + ["think"] * 3 + ["think"] * 2 + ["answer"]


def test_the_policy_allows_this_style_and_script_and_nothing_else(model: Transformer) -> None:
    page = drawn(model, said("1", "2", "3"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    for tag, directive in (("style", "style-src"), ('script type="module"', "script-src")):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag.split()[0]}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "trusted-types 'none'" in policy
    assert not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>&amp;"]
)
def test_no_text_becomes_markup(model: Transformer, text: str) -> None:
    plain = drawn(model, said("q", "t", "a"))
    page = drawn(model, said(text, text, text), title=text, name=text)
    for tag in ("<script", "<img", "<!--"):
        assert page.count(tag) == plain.count(tag)
    assert data_of(page)["title"] == text


def test_parts_of_a_character_are_spelled_as_bytes(model: Transformer) -> None:
    data = data_of(drawn(model, said("é", "t", "a")))
    ids = column(data["contexts"][0]["ids"])[:2]
    assert [data["tokens"][str(id)] for id in ids] == ["\\xc3", "\\xa9"]


def test_attention_is_left_out_until_the_page_fits_and_the_page_says_so(model: Transformer) -> None:
    segment = said("q" * 100, "thinking " * 80, "a" * 20)
    sizes = {}
    for largest in (8_000_000, 300_000, 200_000, 100_000):
        page = drawn(model, segment, largest=largest)
        assert len(page.encode()) <= largest
        (context,) = data_of(page)["contexts"]
        heads = len(context["heads"][0]) if context["heads"] else 0
        sizes[len(column(context["queries"])), heads] = data_of(page)["notes"][1:]
    whole, part, mean, none = sizes
    assert (whole, part, mean, none) == ((840, 4), (277, 4), (277, 1), (0, 0))
    assert sizes[whole] == []
    assert "The attention of the answer and of the last 256 thinking tokens is kept" in sizes[part][0]
    assert "the mean of a layer's heads" in sizes[mean][0]
    assert "No attention is kept: with more, this file would pass 0.1 MB." in sizes[none][0]


def test_a_page_that_cannot_fit_is_refused_with_its_size(model: Transformer) -> None:
    with pytest.raises(
        InvalidRequest, match=r"the page of 120 tokens takes 0\.\d MB without any attention, more than 0.02"
    ):
        drawn(model, said("q" * 60, "t" * 60), largest=20_000)


def test_a_folded_thought_of_30000_tokens_fits(model: Transformer) -> None:
    """Seconds, because it is that long."""
    thoughts = [said("sum?[s]", "three and four are seven. " * 38 + "x" * 12) for _ in range(29)]
    page = drawn(model, *thoughts, said("sum?[s]", "three and four are seven. " * 38, "7" * 12))
    assert len(page.encode()) <= 8_000_000
    data = data_of(page)
    assert sum(context["length"] for context in data["contexts"]) >= 30_000
    assert "The attention of the answer and of the last 256 thinking tokens is kept" in data["notes"][1]
