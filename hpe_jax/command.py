"""What the commands that parse their own flags do alike: help, one line for bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable

from absl import flags

from hpe_jax.errors import InputError, one_line


def run_command(
    argv: list[str],
    given: flags.FlagValues,
    run: Callable[[flags.FlagValues], None],
    *,
    help_text: str,
    instead: str,
) -> int:
    """Exit status of a command: 0, or 2 and one line on stderr for bad input.

    Args:
      argv: the command line, program name first.
      given: the command's flags, not yet parsed.
      run: does the work.
      help_text: printed before the flags for --help.
      instead: how to give what somebody tried to give without a flag.
    """
    if {"-h", "--help", "-help"} & set(argv):
        print(f"{help_text}\nflags:\n{given.get_help()}")
        return 0
    try:
        rest = given(argv)[1:]
        if rest:
            raise InputError(f"{rest[0]}: unexpected, {instead}")
        run(given)
    except (InputError, OSError, flags.Error) as error:
        print("error: " + one_line(error), file=sys.stderr)
        return 2
    return 0
