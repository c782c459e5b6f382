#!/usr/bin/env bash
# Build .venv-chat: the chat templates that TRL ships, each beside the variant whose blocks mark what TRL trains on.
#
# Only the wheel's files are read, so that nothing it depends on is installed.
#
# Usage: tests/oracles/chat/setup.sh [python]      PIP_ARGS is handed to every pip call (an index, for example)
set -euo pipefail
cd "$(dirname "$0")/../../.."

python="${1:-python3}"
target=.venv-chat
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"$target/bin/python" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} --no-deps trl==1.16.0
echo "ready: $(ls "$target"/lib/python*/site-packages/trl/chat_templates/*.jinja | wc -l) templates of TRL"
