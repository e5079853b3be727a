#!/usr/bin/env bash
# Lint, types and the test suite, in two processes. With arguments: pytest alone, with those.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -eq 0 ]; then
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
  set -- --numprocesses=2 --dist=loadfile
fi
exec "$python" -m pytest "$@"
