#!/usr/bin/env bash
# From a fresh clone to a trained model and its pictures, on a laptop CPU and without a
# download of data. Arguments are passed on, for example --config.steps=500.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
exec "$python" -m hpe_jax.main --config=configs/v2v_nyu.py:quick --workdir=runs/quickstart "$@"
