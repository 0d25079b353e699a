#!/usr/bin/env bash
# From a file on disk to a model that thinks, measured and exported, in ./runs: recipes/smollm2/all.sh MODEL.gguf
# Start it again after an interruption: each part goes on where it was. What SFT, GRPO and MEASURE hold is added to the
# commands of that part, for a short try: SFT="--set sft.tokens=30000" GRPO="--set grpo.steps=2" MEASURE="-n 10 --choose 2 --requests 2".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) model=$1 out=runs/smollm2

[ -f $out/start/config.json ] || python "$here/prepare.py" "$model" $out/start
[ -f $out/keep.jsonl ] || python "$here/keep.py" "$model" $out/keep.jsonl
ponder train "$here/1_sft.toml" --resume ${SFT:-}
ponder train "$here/2_grpo.toml" --resume ${GRPO:-}
ponder train "$here/direct.toml" --resume ${SFT:-}
python "$here/measure.py" --untouched "$model" --thinks $out/model --direct $out-direct/model ${MEASURE:-}
cp "$here/chat_template.jinja" $out/model  # for llama.cpp and others; Ponder needs none
ponder export $out/model --to gguf --dtype f16 -o $out/thinks.gguf --force
