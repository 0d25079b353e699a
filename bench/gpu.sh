#!/usr/bin/env bash
# Everything that wants a GPU, in one go, from a source checkout: the tests marked `cuda`, then the tables.
# PYTHON names the interpreter (default: python3). Results land in bench/results; the exit code is the worst of all.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
worst=0

attempt() {
  echo "== $*"
  "$@" || worst=$?
}

attempt "$python" -m pytest -q -m cuda tests
attempt "$python" bench/decode.py --device cuda --shape 1b --vocab 128256 --rounds 3
attempt "$python" bench/decode.py --device cuda --shape 0.6b --vocab 151936 --rounds 3
exit "$worst"
