"""lm-evaluation-harness over HTTP: its `local-completions` runs tasks made from local data. Skipped without lm-eval."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from live import serving

from ponder.serve import Served
from ponder.testing.tiny import tiny_sampler

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]
QUESTIONS = [
    {"question": "What is 2 + 2?", "choices": ["four", "five"], "answer": 0, "text": "four"},
    {"question": "What colour is the sky?", "choices": ["green", "blue", "red"], "answer": 1, "text": "blue"},
    {"question": "Grüße aus?", "choices": ["Köln", "Rom"], "answer": 0, "text": "Köln"},
]
TASKS = {
    "choosing": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
""",
    "writing": """
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: text
generation_kwargs:
  until: ["\\n", "Question:"]
  max_gen_toks: 24
  temperature: 0
metric_list:
  - metric: exact_match
""",
}


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lm_eval")


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS), encoding="utf-8")
    for name, text in TASKS.items():
        data = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/questions.jsonl\n"
        (folder / f"{name}.yaml").write_text(f"{data}test_split: test\n{text}", encoding="utf-8")
    return folder


@pytest.mark.parametrize("options", [{}, {"num_concurrent": 3}, {"batch_size": 2}], ids=str)
def test_both_kinds_of_task_run(lm_eval: Any, tasks: Path, tmp_path: Path, options: dict[str, int]) -> None:
    from lm_eval.tasks import TaskManager

    sampler = tiny_sampler()
    sampler.tokenizer.save(tmp_path / "tokenizer")
    with serving([Served(name="tiny", sampler=sampler)]) as live:
        results = lm_eval.simple_evaluate(
            model="local-completions",
            model_args={
                "model": "tiny",
                "base_url": f"{live.url}/completions",
                "tokenizer": str(tmp_path / "tokenizer"),
                "tokenizer_backend": "huggingface",
                "tokenized_requests": False,
                "max_length": sampler.capabilities.window,
                **options,
            },
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            log_samples=True,
            bootstrap_iters=0,
        )
        with live.client() as client:
            for sample in results["samples"]["writing"]:
                asked = f"Question: {sample['doc']['question']}\nAnswer:"
                told = client.completions.create(
                    model="tiny", prompt=asked, max_tokens=24, temperature=0, stop=["\n", "Question:"]
                )
                assert sample["resps"][0][0] == told.choices[0].text
    assert set(results["results"]) == set(TASKS)
    for sample in results["samples"]["choosing"]:
        doc = sample["doc"]
        expected = [likelihood(sampler, f"Question: {doc['question']}\nAnswer:", f" {each}") for each in doc["choices"]]
        told = [float(resp[0][0]) for resp in sample["resps"]]
        assert told == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def likelihood(sampler: Any, context: str, continuation: str) -> float:
    """What the model itself gives the continuation, in nats."""
    before, ids = sampler.tokenizer.encode(context), sampler.tokenizer.encode(context + continuation)
    logprobs = sampler.engine.model(torch.tensor([ids]))[0, :-1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[len(before) - 1 :, 0].sum().item()
