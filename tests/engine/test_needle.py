"""A needle in a haystack: the cache returns the right keys and values at every depth of a long window.

The model is made by hand. A needle stands somewhere in each page and carries two codes, a key and an answer; a
question carries a key. Attention finds by content, with a margin of dozens of nats, the one needle with that key; its
answer goes to the logits. What a question asks for is nowhere but in the cache.
"""

import random

import pytest
import torch

from ponder.engine import Engine, FinishEvent
from ponder.engine.pages import bytes_per_page
from ponder.model.config import Family, ModelConfig
from ponder.model.transformer import Transformer
from ponder.types import PhaseTokens, SamplingParams

PAGE = 16
BITS = 13
KEY, QUESTION, ANSWER, OUT, REST = (slice(at * BITS, at * BITS + BITS) for at in range(5))
WIDTH, HEAD = 5 * BITS, 32
SLOW = torch.tensor([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20])  # of the planes that hardly turn in a window
NATS_PER_BIT = 40.0


def codes(count):
    """One ±1 code per number, (count, BITS)."""
    return ((torch.arange(count)[:, None] >> torch.arange(BITS)) & 1) * 2.0 - 1


class Haystacks:
    """`count` keys; in haystack h the needle with key i is the id h × count + i, and its answer `answers[h][i]`."""

    def __init__(self, pages, stacks=1):
        self.count = pages
        rng = random.Random(0)
        self.questions, self.filler = stacks * pages, (stacks + 1) * pages
        self.answers = [rng.sample(range(pages), pages) for _ in range(stacks)]
        order = [rng.sample(range(pages), pages) for _ in range(stacks)]
        self.prompts = [[self.filler] * (pages * PAGE) for _ in range(stacks)]
        self.depth = [[0] * pages for _ in range(stacks)]
        for stack in range(stacks):
            for page, key in enumerate(order[stack]):
                at = page * PAGE + rng.randrange(PAGE)
                self.prompts[stack][at] = stack * pages + key
                self.depth[stack][key] = at
        self.config = ModelConfig(
            vocab_size=(stacks + 1) * pages + 1,
            hidden_size=WIDTH,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=HEAD,
            intermediate_size=1,
            family=Family.LLAMA,
            qk_norm=False,
            tie_embeddings=False,
            rope_theta=1e30,
            max_positions=pages * PAGE + PAGE,
        )

    @torch.no_grad()
    def model(self):
        model, code, n = Transformer(self.config), codes(self.count), self.count
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        embedding, block = model.model.embed_tokens.weight, model.model.layers[0].self_attn
        for stack, answers in enumerate(self.answers):
            needles = slice(stack * n, (stack + 1) * n)
            embedding[needles, KEY] = code
            embedding[needles, ANSWER] = code[answers]
        embedding[self.questions : self.questions + n, QUESTION] = code
        embedding[:, REST] = 1.0
        # The norm divides by the root mean square: 3 codes of a needle, 2 of a question.
        q, k, v, out = (torch.eye(BITS) for _ in range(4))
        needle, question = (3 * BITS / WIDTH) ** -0.5, (2 * BITS / WIDTH) ** -0.5
        block.q_proj.weight[SLOW, QUESTION] = q * NATS_PER_BIT * HEAD**0.5 / (needle * question)
        block.k_proj.weight[SLOW, KEY] = k
        block.v_proj.weight[:BITS, ANSWER] = v
        block.o_proj.weight[OUT, :BITS] = out
        model.lm_head.weight[:n, OUT] = 4 * code
        return model

    def ask(self, stack, key):
        """A prompt, and what comes after it."""
        return [*self.prompts[stack], self.questions + key], self.answers[stack][key]

    def engine(self, spare, **options):
        """Memory for the haystacks and `spare` pages."""
        pages = len(self.prompts) * self.count + spare
        memory = pages * bytes_per_page(self.config, PAGE, torch.float32)
        return Engine(self.model(), PhaseTokens(), memory=memory, **options), pages


def assert_every_needle_is_found(stacks, asked, batch=64):
    """Each haystack runs through the model once; every question after it computes one token."""
    running, pages = stacks.engine(batch + 1, max_batch=batch, step_tokens=4096)
    once = SamplingParams(max_tokens=1, temperature=0.0)
    for prompt in stacks.prompts:
        running.generate([prompt], once)
    length = len(stacks.prompts[0])
    assert running.stats.counters.prefill_tokens == length * len(stacks.prompts)
    for begin in range(0, len(asked), batch):
        expected = {}
        for stack, key in asked[begin : begin + batch]:
            prompt, answer = stacks.ask(stack, key)
            expected[running.submit(prompt, once)] = answer, stacks.depth[stack][key]
        while running.has_work:
            for event in running.step():
                if not isinstance(event, FinishEvent):
                    continue
                answer, depth = expected.pop(event.request)
                assert event.ids == (answer,), f"at depth {depth}"
                assert event.segment.logprobs[0] > -0.1
                assert event.usage.cached_tokens == length
            stats = running.stats
            assert stats.pages_used + stats.pages_cached + stats.pages_free == pages
        assert not expected
    counters = running.stats.counters
    assert counters.prefill_tokens == length * len(stacks.prompts) + len(asked)
    assert (running.stats.evictions, counters.preemptions) == (0, 0)


def test_the_model_knows_nothing_without_its_haystack():
    stacks = Haystacks(64)
    once = SamplingParams(max_tokens=1, temperature=0.0)
    running, _ = stacks.engine(64)
    asked = [[stacks.filler] * 20 + [stacks.ask(0, key)[0][-1]] for key in range(64)]
    said = [finish.ids[0] for finish in running.generate(asked, once)]
    assert len(set(said)) == 1


def test_every_page_of_two_long_prompts_is_found_again():
    """The same keys with other answers at other depths: 1,024 needles in 16,384 tokens."""
    stacks = Haystacks(512, stacks=2)
    asked = [(stack, key) for key in range(512) for stack in (0, 1)]
    assert_every_needle_is_found(stacks, asked)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_page_of_a_window_of_131072_tokens_is_found_again():
    stacks = Haystacks(8192)
    assert len(stacks.prompts[0]) == 131_072
    assert_every_needle_is_found(stacks, [(0, key) for key in range(8192)])
