"""What commands do alike: help, one line for bad input, `--config` and its keys."""

from __future__ import annotations

import argparse
import functools
import re
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from absl import flags

from hpe_jax.errors import InputError, one_line


def one_line_errors(main: Callable[[], int]) -> Callable[[], int]:
    """A command's `main` for which bad input is one line on stderr and 2, and Ctrl-C its end."""

    @functools.wraps(main)
    def told() -> int:
        try:
            return main()
        except (InputError, OSError) as error:
            return fail(one_line(error))
        except KeyboardInterrupt as error:
            return interrupted(str(error) or "interrupted")

    return told


def make_parser(help_text: str) -> argparse.ArgumentParser:
    """A parser whose --help begins with all of `help_text`, a module's docstring, as it is."""
    return argparse.ArgumentParser(
        description=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


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

    @one_line_errors
    def told() -> int:
        try:
            rest = given(argv)[1:]
        except flags.Error as error:
            raise InputError(str(error)) from error
        if rest:
            raise InputError(f"{rest[0]}: unexpected, {instead}")
        run(given)
        return 0

    return told()


def config_problem(argv: list[str], required: Sequence[str]) -> str | None:
    """Parse the global flags of a command with `--config=FILE[:VARIANT]`.

    Args:
      argv: the command line, program name first.
      required: names of flags that must have a value.

    Returns:
      What is wrong with them, in words for `fail`; None if nothing is.
    """
    for given in _configs(argv):
        path = given.partition(":")[0]
        if not Path(path).is_file():
            return f"--config={given}: there is no {path}, expected FILE[:VARIANT]"
    try:
        rest = flags.FLAGS(argv)[1:]
        missing = [f"--{name}" for name in required if flags.FLAGS[name].value in (None, "")]
    # A config file is Python: it may raise anything, and so may the value of one of its keys.
    except Exception as error:
        return _reason(error, argv) + _of_stages(error, argv)
    if rest:
        return f"unexpected {rest[0]!r}"
    return f"{missing[0]} is missing" if missing else None


def _configs(argv: list[str]) -> list[str]:
    """What --config names, after "=" or as the next word."""
    after = [word for before, word in pairwise(argv) if before == "--config"]
    return [word.partition("=")[2] for word in argv if word.startswith("--config=")] + after


def _reason(error: Exception, argv: list[str]) -> str:
    """What went wrong with the flags, without the traceback that some messages contain."""
    text = str(error).strip()
    if isinstance(error, flags.UnrecognizedFlagError) and "Did you mean" not in text:
        return f"{text}; fields of the config are given as --config.KEY=VALUE"
    if "Traceback" in text:
        return text.splitlines()[-1].split(": ", 1)[-1]
    if isinstance(error, (AttributeError, KeyError)):
        near = re.search('Did you mean "(.+?)" instead of "(.+?)"', text)
        key = near[2] if near else text.strip("\"'")
        if " " in key:  # Python's own words, of a file without get_config.
            return text
        told = [word for word in argv if re.match(rf"--config\.(.+\.)?{re.escape(key)}\b", word)]
        where = f"{told[0]}: " if told else ""
        hint = f", did you mean {near[1]!r}?" if near else ""
        return f"{where}unknown config key {key!r}{hint}"
    return text


def _of_stages(error: Exception, argv: list[str]) -> str:
    """A hint where a key of an experiment was given to a config of stages."""
    given = _configs(argv)
    if not given or not isinstance(error, (AttributeError, KeyError)):
        return ""
    path, _, variant = given[-1].partition(":")
    try:
        config = runpy.run_path(path)["get_config"](variant)
    except Exception:  # Whatever it is has been said already.
        return ""
    if "stages" not in config:
        return ""
    return f"; of stages, expected --config.stages.STAGE.KEY, STAGE {' or '.join(config.order)}"


def fail(message: str) -> int:
    """Print one line on stderr; the exit status of bad input."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def interrupted(message: str) -> int:
    """Print one line on stderr and end the process by Ctrl-C's signal: a shell's loop ends, too."""
    fail(message)
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
    return 130  # Not reached.
