"""One contender of `bench/decode.py` in a separate process: commands in, timings out, a JSON object a line.

A process each, so that no library's threads, allocator or environment touch another's; the parent lets one run at a
time. Every contender decodes the same way: all prompts are in its cache and every stream has its first token when the
clock starts, and every token is sampled at temperature 1.

    python bench/peers.py ponder --model FOLDER --gguf FILE      (not for hands: `bench/decode.py` starts them)
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from ctypes import c_float, c_int8
from pathlib import Path
from typing import Any, Protocol

Prompts = list[list[int]]
Top = list[tuple[int, float]]


class Peer(Protocol):
    """decode: seconds in which every stream gets `new` - 1 further tokens. prefill: seconds until the prompt's first
    token is there. rollouts: seconds for `samples` answers of `new` tokens to each prompt, from nothing; None: there is
    no such thing. top: the 20 likeliest ids after the prompt and their log-probabilities."""

    def decode(self, prompts: Prompts, new: int) -> float: ...
    def prefill(self, prompt: list[int]) -> float: ...
    def rollouts(self, prompts: Prompts, samples: int, new: int) -> float | None: ...
    def top(self, prompt: list[int]) -> Top: ...
    def about(self) -> str: ...


def likeliest(logits_V: Any) -> Top:
    found = logits_V.float().log_softmax(-1).topk(20)
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


class Ponder:
    """The engine, its Python included. `path`: what `Engine(kernel=…)` takes."""

    def __init__(self, args: argparse.Namespace, path: str, **options: Any) -> None:
        import torch

        from ponder.engine import Engine
        from ponder.model.checkpoint import load_model
        from ponder.types import PhaseTokens

        torch.set_num_threads(args.threads)
        self.engine = Engine(
            load_model(args.model, dtype=torch.bfloat16, device=args.device),
            PhaseTokens(),
            max_batch=args.streams,
            window=args.window,
            memory=1 << 32 if args.device == "cpu" else 0.5,
            kernel=path,  # type: ignore[arg-type]
            **options,
        )

    def about(self) -> str:
        kernel, reason = self.engine.kernel
        return f"{kernel} ({reason})" if reason else kernel

    def decode(self, prompts: Prompts, new: int) -> float:
        from ponder.evaluate.speed import decode_rate

        return len(prompts) * (new - 1) / decode_rate(self.engine, prompts, new)

    def prefill(self, prompt: list[int]) -> float:
        from ponder.evaluate.speed import prefill_seconds

        return prefill_seconds(self.engine, prompt)

    def rollouts(self, prompts: Prompts, samples: int, new: int) -> float:
        from ponder.types import SamplingParams

        began = time.perf_counter()
        self.engine.generate([prompt for prompt in prompts for _ in range(samples)], SamplingParams(max_tokens=new))
        return time.perf_counter() - began

    def top(self, prompt: list[int]) -> Top:
        from ponder.types import SamplingParams

        finish = self.engine.generate([prompt], SamplingParams(max_tokens=1, temperature=0, top_logprobs=20))[0]
        assert finish.segment.top_logprobs is not None
        return list(finish.segment.top_logprobs[0])


class Transformers:
    def __init__(self, args: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(args.threads)
        self.model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval().to(args.device)

    def about(self) -> str:
        import torch
        import transformers

        return f"{transformers.__version__}, torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"

    def _times(self, prompts: Prompts, new: int, samples: int = 1) -> list[float]:
        """When each token was about to be sampled, and when the last one was there."""
        import torch
        from transformers import GenerationConfig

        times: list[float] = []

        def now() -> float:
            if self.model.device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        def note(ids: Any, scores: Any) -> Any:
            times.append(now())
            return scores

        config = GenerationConfig(
            do_sample=True,
            top_k=0,
            top_p=1.0,
            num_return_sequences=samples,
            max_new_tokens=new,
            eos_token_id=None,
            pad_token_id=0,
        )
        ids = torch.tensor(prompts, device=self.model.device)
        with torch.inference_mode():
            self.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config, logits_processor=[note]
            )
        return [*times, now()]

    def decode(self, prompts: Prompts, new: int) -> float:
        times = self._times(prompts, new)
        return times[-1] - times[1] + (times[2] - times[1])  # the first step's own sampling, as long as another's

    def prefill(self, prompt: list[int]) -> float:
        began = time.perf_counter()
        return self._times([prompt], 1)[-1] - began

    def rollouts(self, prompts: Prompts, samples: int, new: int) -> float:
        began = time.perf_counter()
        return self._times(prompts, new, samples)[-1] - began

    def top(self, prompt: list[int]) -> Top:
        import torch

        with torch.inference_mode():
            return likeliest(self.model(torch.tensor([prompt], device=self.model.device)).logits[0, -1])


class Batched(Transformers):
    """transformers' own continuous batching. Its steps cannot be told apart: decoding is what more tokens cost."""

    def _seconds(self, prompts: Prompts, new: int) -> float:
        from transformers import GenerationConfig

        config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=new, eos_token_id=-1, pad_token_id=0)
        began = time.perf_counter()
        found = self.model.generate_batch(inputs=prompts, generation_config=config, progress_bar=False)
        assert all(len(each.generated_tokens) == new for each in found.values()), "an answer is short"
        return time.perf_counter() - began

    def decode(self, prompts: Prompts, new: int) -> float:
        return self._seconds(prompts, new) - self._seconds(prompts, 1)

    def prefill(self, prompt: list[int]) -> float:
        return self._seconds([prompt], 1)

    def rollouts(self, prompts: Prompts, samples: int, new: int) -> float:
        return self._seconds([prompt for prompt in prompts for _ in range(samples)], new)


class Eager:
    """Plain torch: our module, a dense cache of fixed size, one batch. What a careful loop without an engine gives."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from ponder.model.checkpoint import load_model

        torch.set_num_threads(args.threads)
        self.model = load_model(args.model, dtype=torch.bfloat16)

    def about(self) -> str:
        import torch

        return f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()}"

    def rollouts(self, prompts: Prompts, samples: int, new: int) -> None:
        return None

    def _begin(self, prompts: Prompts, new: int = 1) -> tuple[Any, Any]:
        """The cache's `attend`, with room for `new` tokens, and the first logits."""
        import torch
        from torch.nn import functional as F

        config = self.model.config
        shape = (config.num_layers, len(prompts), config.num_kv_heads, len(prompts[0]) + new, config.head_dim)
        keys, values = torch.zeros(shape, dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16)

        class Attend:
            end = len(prompts[0])

            def __call__(self, layer: int, q_BHTd: Any, k_BKTd: Any, v_BKTd: Any) -> Any:
                new = q_BHTd.shape[2]
                keys[layer][:, :, self.end - new : self.end] = k_BKTd
                values[layer][:, :, self.end - new : self.end] = v_BKTd
                k, v = keys[layer][:, :, : self.end], values[layer][:, :, : self.end]
                return F.scaled_dot_product_attention(q_BHTd, k, v, is_causal=new > 1, enable_gqa=True)

        attend = Attend()
        hidden = self.model.hidden(torch.tensor(prompts), attend=attend)
        return attend, self.model.unembed(hidden[:, -1])

    def decode(self, prompts: Prompts, new: int) -> float:
        import torch

        with torch.inference_mode():
            attend, logits = self._begin(prompts, new)
            ids = torch.multinomial(logits.float().softmax(-1), 1)
            began = time.perf_counter()
            for _ in range(new - 1):
                positions = torch.full((len(prompts), 1), attend.end)
                attend.end += 1
                hidden = self.model.hidden(ids, positions_BT=positions, attend=attend)
                ids = torch.multinomial(self.model.unembed(hidden[:, -1]).float().softmax(-1), 1)
            return time.perf_counter() - began

    def prefill(self, prompt: list[int]) -> float:
        import torch

        with torch.inference_mode():
            began = time.perf_counter()
            torch.multinomial(self._begin([prompt])[1].float().softmax(-1), 1)
            return time.perf_counter() - began

    def top(self, prompt: list[int]) -> Top:
        import torch

        with torch.inference_mode():
            return likeliest(self._begin([prompt])[1][0])


class LlamaCpp:
    """llama.cpp through its C interface: batches, and its own sampler, from Python with one call each."""

    def __init__(self, args: argparse.Namespace) -> None:
        from llama_cpp import llama_cpp as c

        self.c = c
        self.args = args
        self.log = c.llama_log_callback(lambda level, text, data: None)  # kept: C calls it later
        c.llama_log_set(self.log, None)
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(str(args.gguf).encode(), c.llama_model_default_params())
        assert self.model, args.gguf
        self.vocab_size = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.contexts: dict[int, Any] = {}
        self.chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        c.llama_sampler_chain_add(self.chain, c.llama_sampler_init_temp(c_float(1.0)))
        c.llama_sampler_chain_add(self.chain, c.llama_sampler_init_dist(1))
        self.batch = c.llama_batch_init(max(2048, args.streams), 0, 1)

    def about(self) -> str:
        import llama_cpp

        return f"llama-cpp-python {llama_cpp.__version__}, {self.c.llama_print_system_info().decode().strip(' |')}"

    def _context(self, streams: int) -> Any:
        """Empty, with room for the streams that it is made for and no more."""
        if streams not in self.contexts:
            params = self.c.llama_context_default_params()
            params.n_ctx = streams * -(-self.args.window // 256) * 256
            params.n_batch = params.n_ubatch = 2048
            params.n_seq_max = streams
            params.n_threads = params.n_threads_batch = self.args.threads
            self.contexts[streams] = self.c.llama_init_from_model(self.model, params)
            assert self.contexts[streams]
        context = self.contexts[streams]
        self.c.llama_memory_clear(self.c.llama_get_memory(context), True)
        return context

    def _run(self, context: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
        """tokens: (id, position, stream, whether its logits are wanted)."""
        batch = self.batch
        for at, (id, position, stream, wanted) in enumerate(tokens):
            batch.token[at], batch.pos[at], batch.logits[at] = id, position, c_int8(wanted)
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = stream
        batch.n_tokens = len(tokens)
        if self.c.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")

    def _prompt(self, context: Any, prompt: list[int], stream: int) -> None:
        last = len(prompt) - 1
        self._run(context, [(id, at, stream, at == last) for at, id in enumerate(prompt)])

    def decode(self, prompts: Prompts, new: int) -> float:
        context, sample = self._context(len(prompts)), self.c.llama_sampler_sample
        ids = []
        for stream, prompt in enumerate(prompts):
            self._prompt(context, prompt, stream)
            ids.append(sample(self.chain, context, -1))
        began, start = time.perf_counter(), len(prompts[0])
        for step in range(new - 1):
            self._run(context, [(id, start + step, stream, True) for stream, id in enumerate(ids)])
            ids = [sample(self.chain, context, stream) for stream in range(len(prompts))]
        return time.perf_counter() - began

    def prefill(self, prompt: list[int]) -> float:
        context = self._context(1)
        began = time.perf_counter()
        self._prompt(context, prompt, 0)
        self.c.llama_sampler_sample(self.chain, context, -1)
        return time.perf_counter() - began

    def rollouts(self, prompts: Prompts, samples: int, new: int) -> None:
        return None

    def top(self, prompt: list[int]) -> Top:
        import torch

        context = self._context(1)
        self._prompt(context, prompt, 0)
        found = self.c.llama_get_logits_ith(context, -1)
        return likeliest(torch.tensor(found[: self.vocab_size]))


class OpenVino:
    """optimum-intel's `generate` over OpenVINO's runtime, with the bfloat16 hint."""

    def __init__(self, args: argparse.Namespace) -> None:
        from optimum.intel import OVModelForCausalLM

        config = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": str(args.threads)}
        self.model = OVModelForCausalLM.from_pretrained(
            args.model, export=True, ov_config=config, load_in_8bit=False, compile=True
        )

    def about(self) -> str:
        import openvino

        return f"openvino {openvino.__version__.split('-')[0]}"

    _times = Transformers._times
    decode = Transformers.decode
    prefill = Transformers.prefill
    rollouts = Transformers.rollouts

    def top(self, prompt: list[int]) -> Top:
        import torch

        ids = torch.tensor([prompt])
        return likeliest(self.model(ids, attention_mask=torch.ones_like(ids)).logits[0, -1])


PEERS: dict[str, Callable[[argparse.Namespace], Peer]] = {
    "ponder": lambda args: Ponder(args, "auto"),
    "ponder-int8": lambda args: Ponder(args, "auto", quantize="int8"),
    "ponder-torch": lambda args: Ponder(args, "torch"),
    "transformers": Transformers,
    "generate_batch": Batched,
    "eager": Eager,
    "llama.cpp": LlamaCpp,
    "openvino": OpenVino,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--model", type=Path, required=True, help="folder in the Hugging Face layout")
    parser.add_argument("--gguf", type=Path, help="the same weights as GGUF")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--streams", type=int, default=256, help="at most")
    parser.add_argument("--window", type=int, default=1280, help="tokens of one stream, at most")
    args = parser.parse_args()
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not get between the answers
    peer = PEERS[args.name](args)
    print(json.dumps({"about": peer.about()}), file=out, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        verb = command.pop("verb")
        answer = getattr(peer, verb)(**command)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"answer": answer, "peak_mib": peak}), file=out, flush=True)


if __name__ == "__main__":
    main()
