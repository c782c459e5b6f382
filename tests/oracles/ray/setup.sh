#!/usr/bin/env bash
# Build .venv-ray: Ray, beside the packages of .venv, so that torch is not installed twice.
#
# Usage: tests/oracles/ray/setup.sh [python]      PIP_ARGS is handed to every pip call (an index, for example)
set -euo pipefail
cd "$(dirname "$0")/../../.."

python="${1:-python3}"
target=.venv-ray
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
# shellcheck disable=SC2086  # PIP_ARGS is a list of words
"$target/bin/python" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS:-} ray==2.60.0
site=$("$target/bin/python" -c 'import site; print(site.getsitepackages()[0])')
.venv/bin/python -c 'import site; print(site.getsitepackages()[0])' > "$site/beside.pth"
# What .venv itself holds in editable form.
for path in "$(.venv/bin/python -c 'import site; print(site.getsitepackages()[0])')"/_editable_impl_*.pth; do
  [ -e "$path" ] && cat "$path" >> "$site/beside.pth"
done
"$target/bin/python" -c "import ray, torch; print('ready: ray', ray.__version__, 'torch', torch.__version__)"
