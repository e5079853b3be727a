"""Train (or resume what the directory holds), then evaluate.

python -m hpe_jax.main --config=FILE[:VARIANT] --workdir=DIR [--config.KEY=VALUE ...]

Leaves metrics.json, predictions.txt, report/, checkpoints/, config.json, tensorboard/ and
log.txt in DIR, or in DIR/STAGE for every stage of a paper that trains in stages. Running it
again with the same DIR resumes, or only evaluates when the training is complete.
"""

from __future__ import annotations

import sys

from absl import flags, logging
from ml_collections import config_flags

from hpe_jax.command import config_problem, fail, interrupted
from hpe_jax.process import huge_pages

_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment, FILE[:VARIANT]")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run, made if absent")


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`."""
    if {"-h", "--help", "-help"} & set(argv):
        print(f"{__doc__}\nflags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    problem = config_problem(argv, ("config", "workdir"))
    if problem:
        return fail(problem)

    try:
        return _run()
    except KeyboardInterrupt:
        return interrupted(f"{_WORKDIR.value}: interrupted, the same command continues")


def _run() -> int:
    # Imported late, so that --help and slips of the pen answer at once.
    from jax.errors import JaxRuntimeError

    from hpe_jax.errors import InputError, TrainingError, one_line
    from hpe_jax.process import use_cache
    from hpe_jax.training import stages

    # A failed save ends in one clear line here; the checkpointer would log a traceback for it.
    logging.set_verbosity(logging.FATAL)
    use_cache()
    try:
        stages.run(_CONFIG.value, str(_WORKDIR.value))
    except (InputError, TrainingError, OSError) as error:
        return fail(one_line(error))
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return fail(
            f"{str(error).splitlines()[0].rstrip('.')}: expected a smaller batch or eval_batch, or "
            "optimizer.accumulate > 1, which splits a batch"
        )
    return 0


if __name__ == "__main__":
    huge_pages()
    sys.exit(main(sys.argv))
