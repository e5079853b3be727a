"""What checks the annotations of the library while its tests run (`pyproject.toml`)."""

import inspect

from beartype import BeartypeConf, beartype

# As for every type checker, an int will do where a float is asked for.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def as_users_call_it(function):
    """Without that check: what is then left to refuse bad arguments is the function itself. (Of a
    jitted one it would be what was jitted.)"""
    return inspect.unwrap(function)
