"""Train (or resume what the directory holds), then evaluate.

python -m hpe_jax.main --config=FILE[:VARIANT] --workdir=DIR [--config.KEY=VALUE ...]

Leaves metrics.json, predictions.txt, report/, checkpoints/, config.json, tensorboard/ and
log.txt in DIR, or in DIR/STAGE for every stage of a paper that trains in stages. Running it
again with the same DIR resumes, or only evaluates when the training is complete.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment, FILE[:VARIANT]")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run, made if absent")


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`."""
    if {"-h", "--help", "-help"} & set(argv):
        print(f"{__doc__}\nflags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    for given in (word for word in argv if word.startswith("--config=")):
        path = given.partition("=")[2].partition(":")[0]
        if not Path(path).is_file():
            return _fail(f"{given}: there is no {path}, expected FILE[:VARIANT]")
    try:
        rest = flags.FLAGS(argv)[1:]
        missing = [f"--{name}" for name in ("config", "workdir") if not flags.FLAGS[name].value]
        if rest or missing:
            return _fail(f"unexpected {rest[0]!r}" if rest else f"{missing[0]} is missing")
    # A config file is Python: it may raise anything, and so may the value of one of its keys.
    except Exception as error:
        return _fail(_reason(error))

    # After the flags, so that --help and slips of the pen answer at once.
    # A failed save ends in one clear line here; the checkpointer would log a traceback for it.
    logging.set_verbosity(logging.FATAL)
    from hpe_jax.errors import InputError, TrainingError, one_line
    from hpe_jax.process import keep_memory, use_cache
    from hpe_jax.training import stages

    use_cache()
    keep_memory()
    try:
        stages.run(_CONFIG.value, str(_WORKDIR.value))
    except (InputError, TrainingError, OSError) as error:
        return _fail(one_line(error))
    return 0


def _reason(error: Exception) -> str:
    """What went wrong with the flags, without the traceback that some messages contain."""
    text = str(error).strip()
    if "Traceback" in text:
        return text.splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, (AttributeError, KeyError)):
        near = re.search('Did you mean "(.+?)" instead of "(.+?)"', text)
        if near:
            return f"unknown config key {near[2]!r}, did you mean {near[1]!r}?"
        return f"unknown config key {text}"
    return text


def _fail(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
