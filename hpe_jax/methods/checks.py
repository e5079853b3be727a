"""Fields of a method's config that no training can use: refused here, by all methods alike."""

from __future__ import annotations

from ml_collections import ConfigDict

from hpe_jax.errors import InputError

DTYPES = ("float32", "bfloat16")
"""What a method computes in."""


def at_least(config: ConfigDict, least: int, *names: str) -> None:
    """InputError unless these numbers are no less than `least`."""
    for name in names:
        _refuse_unless(config[name] >= least, config, name, f"at least {least}")


def positive(config: ConfigDict, *names: str) -> None:
    """InputError unless these numbers are above 0."""
    for name in names:
        _refuse_unless(config[name] > 0, config, name, "a positive number")


def within(config: ConfigDict, name: str, low: int, high: int, what: str) -> None:
    """InputError unless a number of `what` is `low` to `high`."""
    _refuse_unless(low <= config[name] <= high, config, name, f"{low} to {high} {what}")


def multiple(config: ConfigDict, name: str, of: int, least: int, why: str = "") -> None:
    """InputError unless a number is a multiple of `of`, from `least` on."""
    good = config[name] >= least and config[name] % of == 0
    low = f", at least {least}" if least > of else ""
    _refuse_unless(good, config, name, f"a multiple of {of}{low}{why}")


def share(config: ConfigDict, name: str) -> None:
    """InputError unless a number is at least 0 and below 1."""
    _refuse_unless(0 <= config[name] < 1, config, name, "at least 0 and below 1")


def spread(config: ConfigDict, name: str) -> None:
    """InputError unless a field holds two factors, the lower one first."""
    pair = config[name]
    good = len(pair) == 2 and 0 < pair[0] <= pair[1]
    _refuse_unless(good, config, name, "two numbers, 0 < low <= high")


def widths(config: ConfigDict, name: str, count: int) -> None:
    """InputError unless a field holds so many numbers of channels."""
    good = len(config[name]) == count and min(config[name]) >= 1
    _refuse_unless(good, config, name, f"{count} numbers, all at least 1")


def one_of(config: ConfigDict, name: str, allowed: tuple[str | int, ...]) -> None:
    """InputError unless a field is one of these words or numbers."""
    _refuse_unless(config[name] in allowed, config, name, f"one of {', '.join(map(str, allowed))}")


def _refuse_unless(good: bool, config: ConfigDict, name: str, expected: str) -> None:
    if not good:
        raise InputError(f"method.{name}={config[name]!r}: expected {expected}")
