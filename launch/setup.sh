# Sourced by the other scripts: goes to the repository root, makes `.venv` with any
# Python >= 3.11 if there is none, and installs requirements.txt when it has changed.
# PYTHON=... chooses the interpreter for a new environment. Leaves the environment's
# interpreter in $python, whether or not another environment is active.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONHOME

if [ ! -x .venv/bin/python ]; then
  found=""
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then
      found=$candidate
      break
    fi
  done
  if [ -z "$found" ]; then
    echo "error: no Python >= 3.11 with the venv module among:" \
      "${PYTHON:-python3.13 python3.12 python3.11 python3 python}" >&2
    exit 1
  fi
  echo "Making .venv with $("$found" --version)" >&2
  "$found" -m venv .venv
fi
# Making it may have been interrupted, or somebody else made it.
.venv/bin/python -c 'import pip' 2>/dev/null || .venv/bin/python -m ensurepip >/dev/null 2>&1 || true
if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: .venv: expected Python >= 3.11 with pip; remove it, and it is made anew" >&2
  exit 1
fi

python=.venv/bin/python
if ! cmp -s requirements.txt .venv/installed-requirements.txt; then
  echo "Installing requirements.txt into .venv" >&2
  "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/installed-requirements.txt
fi
