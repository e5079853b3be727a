# Sourced by the other scripts: goes to the repository root, makes `.venv` with any
# Python >= 3.11 if there is none, and installs requirements.txt when it has changed.
# A .venv that cannot be used, such as one whose making was interrupted, is made again.
# PYTHON=... chooses the interpreter for a new environment. Leaves the environment's
# interpreter in $python, whether or not another environment is active.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONHOME

if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' \
    >/dev/null 2>&1; then
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
  "$found" -m venv --clear .venv
fi

python=.venv/bin/python
if ! cmp -s requirements.txt .venv/installed-requirements.txt; then
  echo "Installing requirements.txt into .venv" >&2
  "$python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/installed-requirements.txt
fi
