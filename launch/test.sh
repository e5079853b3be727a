#!/usr/bin/env bash
# Lint, types and the test suite. With arguments: pytest alone, with those arguments.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
if [ $# -eq 0 ]; then
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
fi
exec "$python" -m pytest "$@"
