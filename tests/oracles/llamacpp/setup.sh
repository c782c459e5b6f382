#!/usr/bin/env bash
# Build .venv-llamacpp: llama.cpp itself, the owner of GGUF files, and real vocabularies to try it with.
#
# The wheel xllamacpp exports llama.cpp's C functions from its extension module; llama-cpp-py-sync carries their
# declarations for cffi, of almost the same build. The two versions are a pair: change them together.
#
# Usage: tests/oracles/llamacpp/setup.sh [python]      PIP_ARGS is handed to every pip call (an index, for example)
set -euo pipefail
cd "$(dirname "$0")/../../.."

python="${1:-python3}"
target=.venv-llamacpp
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
pip=("$target/bin/python" -m pip install --quiet --disable-pip-version-check)

# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"${pip[@]}" ${PIP_ARGS:-} xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548 cffi numpy gguf==0.19.0
# The packages' vocabularies are all that is wanted of them; what else they ask for stays out.
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} --no-deps mistral-common==1.13.1 llama-models==0.3.0
# shellcheck disable=SC2086
"${pip[@]}" ${PIP_ARGS:-} sentencepiece
"$target/bin/python" -c "import xllamacpp; print('ready: xllamacpp', xllamacpp.__version__)"
