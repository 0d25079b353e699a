"""What the transformer promises by itself: documents kept apart, decoding through a cache, dtypes, weights by seed."""

import pytest
import torch
from torch.nn import functional as F

from ponder.kernels.machine import machine
from ponder.model.config import Family, ModelConfig
from ponder.model.hf_config import config_from_hf, config_to_hf
from ponder.model.transformer import Transformer, count_positions

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48
)


def random_model(**changes) -> Transformer:
    fields = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    model = Transformer(ModelConfig(**(fields | changes)), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # far from the near-uniform start, so that differences show
    return model


def random_ids(B: int, T: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 64, (B, T), generator=torch.Generator().manual_seed(seed))


class Cache:
    """The simplest engine: keys and values of all tokens so far, contiguous."""

    def __init__(self) -> None:
        self.kv: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, layer, q_BHTd, k_BKTd, v_BKTd):
        if layer in self.kv:
            k, v = self.kv[layer]
            k_BKTd, v_BKTd = torch.cat((k, k_BKTd), 2), torch.cat((v, v_BKTd), 2)
        self.kv[layer] = k_BKTd, v_BKTd
        T, S = q_BHTd.shape[2], k_BKTd.shape[2]
        seen_TS = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        return F.scaled_dot_product_attention(q_BHTd, k_BKTd, v_BKTd, attn_mask=seen_TS, enable_gqa=True)


@torch.no_grad()
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("chunks", [[30], [1] * 30, [17, 1, 1, 8, 3]])
def test_decoding_through_a_cache_equals_the_full_forward(family: Family, chunks: list[int]) -> None:
    model = random_model(family=family, qk_norm=family is Family.QWEN3, attention_bias=family is Family.QWEN2)
    ids_BT = random_ids(2, 30)
    cache, begin, parts = Cache(), 0, []
    for length in chunks:
        positions_BT = torch.arange(begin, begin + length).expand(2, -1)
        parts.append(model(ids_BT[:, begin : begin + length], positions_BT=positions_BT, attend=cache))
        begin += length
    torch.testing.assert_close(torch.cat(parts, 1), model(ids_BT), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[150, 150], [1, 127, 128, 44], [1] * 40 + [260], [299, 1]])
def test_packed_documents_equal_each_document_alone(lengths: list[int]) -> None:
    model = random_model()
    ids_BT = random_ids(1, 300)
    documents_BT = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    packed = model(ids_BT, documents_BT=documents_BT)[0].split(lengths)
    for document, logits in zip(ids_BT[0].split(lengths), packed, strict=True):
        torch.testing.assert_close(logits, model(document[None])[0], atol=1e-5, rtol=1e-5)


def test_no_gradient_crosses_a_document_boundary() -> None:
    model = random_model()
    documents_BT = torch.tensor([[0] * 10 + [1] * 10])
    embedded = []
    model.model.embed_tokens.register_forward_hook(
        lambda _m, _i, output: embedded.append(output.retain_grad() or output)
    )
    model(random_ids(1, 20), documents_BT=documents_BT)[:, 10:].sum().backward()
    gradient_TD = embedded[0].grad[0]
    assert gradient_TD[:10].abs().max() == 0
    assert gradient_TD[10:].abs().max() > 0


@torch.no_grad()
def test_the_future_is_not_seen() -> None:
    model = random_model()
    ids_BT = random_ids(1, 300)
    changed_BT = ids_BT.clone()
    changed_BT[0, 200:] = (changed_BT[0, 200:] + 1) % 64
    torch.testing.assert_close(model(ids_BT)[:, :200], model(changed_BT)[:, :200], atol=0, rtol=0)


def test_positions_restart_with_each_document() -> None:
    documents_BT = torch.tensor([[5, 5, 5, 2, 2, 5], [0, 1, 2, 2, 2, 2]])
    assert count_positions(documents_BT, documents_BT).tolist() == [[0, 1, 2, 0, 1, 0], [0, 0, 0, 1, 2, 3]]
    assert count_positions(documents_BT, None).tolist() == [[0, 1, 2, 3, 4, 5]] * 2


@torch.no_grad()
def test_lengths_that_no_block_divides() -> None:
    """Causal attention goes in blocks of queries; torch's own kernel is the reference at every length."""
    model = random_model()

    def reference(layer, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    for T in (1, 2, 127, 128, 129, 257, 1030):
        ids_BT = random_ids(1, T)
        torch.testing.assert_close(model(ids_BT), model(ids_BT, attend=reference), atol=2e-5, rtol=1e-5)


def test_documents_and_a_cache_are_refused_together() -> None:
    with pytest.raises(ValueError, match="documents_BT"):
        random_model()(random_ids(1, 4), documents_BT=torch.zeros(1, 4), attend=Cache())


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (Transformer(CONFIG, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_those_that_the_config_lists(tie: bool) -> None:
    model = random_model(tie_embeddings=tie, attention_bias=True)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == model.config.parameter_shapes()
    assert sum(p.numel() for p in model.parameters()) == model.config.num_parameters


@torch.no_grad()
def test_bfloat16_products_over_float32_weights() -> None:
    model = random_model()
    exact = model(random_ids(2, 50))
    model.compute_dtype = torch.bfloat16
    rounded = model(random_ids(2, 50))
    assert rounded.dtype == model.product_dtype == machine().dtype
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    model.compute_dtype = None
    assert torch.equal(model(random_ids(2, 50)), exact)


def test_rotary_frequencies_stay_float32_under_to() -> None:
    model = random_model()
    before = model.model.rotary.inv_freq.clone()
    assert torch.equal(model.to(torch.bfloat16).model.rotary.inv_freq, before)


def test_how_long_a_model_may_think_is_in_its_config() -> None:
    sizes = {"vocab_size": 32, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 4}
    written = config_to_hf(ModelConfig(**sizes, intermediate_size=8))
    assert "thinking_tokens" not in written
    config = config_from_hf({**written, "thinking_tokens": 32768})
    assert config.thinking_tokens == 32768
    assert config_to_hf(config)["thinking_tokens"] == 32768
    assert "voices" not in written
    assert config_to_hf(config_from_hf({**written, "voices": 4}))["voices"] == 4
