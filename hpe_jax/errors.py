"""The two exceptions that commands turn into a single clear line and exit code 2."""


class InputError(ValueError):
    """Input that cannot be used: the message names the file or key and what was expected."""


class TrainingError(RuntimeError):
    """A run that cannot go on: the message names the step and what is left intact."""
