"""The errors that a user can cause, each with the exit code that the command line returns for it."""

from __future__ import annotations


class SciresdiffError(Exception):
    """Something that a user can mend: one line that names the option or file, what was given and what to try."""

    exit_code = 1


class SciresdiffWarning(UserWarning):
    """What may spoil a result, raised through `warnings` by the Python interface; the result's notes have it too."""


class UsageError(SciresdiffError):
    """An option or value that cannot be used, or an output that exists."""

    exit_code = 2


class InputError(SciresdiffError):
    """An input or a model that is missing, unreadable, unsupported or inconsistent."""

    exit_code = 3


class CheckFailed(SciresdiffError):  # noqa: N818 (it is what the exit code means)
    """A check failed under ``--strict``."""

    exit_code = 4


class ResourceError(SciresdiffError):
    """Disk or memory ran out, or a scheduler, worker or other process of the job is gone."""

    exit_code = 5


class UnmeasuredError(Exception):
    """What cannot be measured on these data; the message says why, in a few words, and whoever asked decides."""
