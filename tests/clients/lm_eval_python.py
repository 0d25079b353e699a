"""lm-evaluation-harness: a small task over chat completions."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import lm_eval
from cells import KEY, MODEL, REMEMBER, SAID, SAY, URL, WHICH, WORD, equal, row
from lm_eval.tasks import TaskManager

os.environ["OPENAI_API_KEY"] = KEY
TASK = """
task: said
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/test.jsonl
    fewshot: {folder}/fewshot.jsonl
test_split: test
fewshot_split: fewshot
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
generation_kwargs:
  until: ["###"]
  max_gen_toks: 200
  temperature: 0
metric_list:
  - metric: exact_match
"""


def run(question: str, answer: str, **options: object) -> None:
    """One document, and one example for those that show some; its answer is what the server says to the example."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"test.jsonl": (question, answer), "fewshot.jsonl": (REMEMBER, f"I remember {WORD}.")}
        for name, (asked, told) in files.items():
            Path(folder, name).write_text(json.dumps({"question": asked, "answer": told}) + "\n", encoding="utf-8")
        Path(folder, "said.yaml").write_text(TASK.format(folder=folder), encoding="utf-8")
        results = lm_eval.simple_evaluate(
            model="local-chat-completions",
            model_args={"model": MODEL, "base_url": f"{URL}/chat/completions", "max_retries": 1},
            tasks=["said"],
            task_manager=TaskManager(include_path=folder, include_defaults=False),
            apply_chat_template=True,
            bootstrap_iters=0,
            **options,
        )
    equal(results["results"]["said"]["exact_match,none"], 1)


row(
    "lm-eval, local-chat-completions",
    "lm-eval",
    chat=lambda: run(SAY, SAID),
    stream="it does not stream",
    tools="it calls no tools",
    structured="it asks for no schema",
    two_turns=lambda: run(WHICH, WORD, num_fewshot=1, fewshot_as_multiturn=True),
)
