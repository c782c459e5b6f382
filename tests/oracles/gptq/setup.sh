#!/usr/bin/env bash
# Build .venv-gptq: the library GPTQ checkpoints belong to, in an environment of its own.
#
# torch goes in first and is pinned while the rest resolves: without the constraint the newest GPU build of
# torch comes in as a dependency, several gigabytes of it. The library also lowers numpy, which is why it
# cannot share the project's own environment.
#
# Usage: tests/oracles/gptq/setup.sh [python]      PIP_ARGS is handed to every pip call (an index, for example)
set -euo pipefail
cd "$(dirname "$0")/../../.."

python="${1:-python3}"
target=.venv-gptq
constraint=$(mktemp)
trap 'rm -f "$constraint"' EXIT

[ -x "$target/bin/python" ] || "$python" -m venv "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)

# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"${pip[@]}" ${PIP_ARGS:-} torch==2.13.0
"$target/bin/python" - > "$constraint" <<'PY'
import importlib.metadata as metadata
print("torch==" + metadata.version("torch"))
PY
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c "$constraint" setuptools wheel numpy safetensors
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c "$constraint" gptqmodel==7.6.0 transformers==5.23.0 accelerate optimum peft==0.21.2
"$target/bin/python" -c "import torch; print('ready: torch', torch.__version__)"
