#!/usr/bin/env bash
# Build .venv-formats: the libraries that bitsandbytes, compressed-tensors, torchao, GGUF, HQQ, AQLM, ONNX files belong to.
#
# torch goes in first and is pinned while the rest resolves, or the newest GPU build of it comes in as a dependency.
#
# Usage: tests/oracles/formats/setup.sh [python]      PIP_ARGS is handed to every pip call (an index, for example)
set -euo pipefail
cd "$(dirname "$0")/../../.."

python="${1:-python3}"
target=.venv-formats
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)

# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"${pip[@]}" ${PIP_ARGS:-} torch==2.13.0
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c <(echo torch==2.13.0) transformers==5.23.0 accelerate safetensors \
  bitsandbytes==0.50.2 compressed-tensors==0.20.0 torchao==0.18.0 gguf==0.19.0 diffusers==0.42.1
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c <(echo torch==2.13.0) onnxruntime==1.31.1 onnx==1.23.0 onnx_ir
# Stale libraries, whose own pins would pull in what nothing here runs.
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c <(echo torch==2.13.0) --no-deps hqq==0.2.8.post1 aqlm==1.1.7
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} -c <(echo torch==2.13.0) numba scipy termcolor einops
"$target/bin/python" -c "import torch; print('ready: torch', torch.__version__)"
