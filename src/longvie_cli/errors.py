"""The exceptions of `longvie`, and the exit code of each branch.

LongVieError                      1   anything that went wrong and has no branch of its own
  UsageError                      2   flags that contradict each other
  MissingResourceError            3   weights or an optional dependency are missing
  OutputConflictError             4   the output exists, or another process holds the run
  InputError                      5   what the user brought cannot be used
    MediaError                        a video, an image, a sound file
    ControlError                      depth, tracks, cond.json
    SettingsError                     a YAML file, an environment variable, a prompt file
  ResumableError                 75   stopped with everything saved; the same command continues
    OtherProcessEnded                 one of several processes of torchrun is gone
  StoppedBySignal           130/143   Ctrl-C or SIGTERM
"""

from __future__ import annotations

import signal


class LongVieError(Exception):
    """Base of every error shown to a user.

    Args:
        message: What is wrong, with the numbers, beginning with the file or flag.
        hint: What to do about it, or empty where the message says it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LongVieError):
    """Flags that contradict each other or a value outside its range."""

    exit_code = 2


class MissingResourceError(LongVieError):
    """Weights or an optional dependency are missing; the hint is the command that mends it."""

    exit_code = 3


class OutputConflictError(LongVieError):
    """The output exists, or another process holds the run folder."""

    exit_code = 4


class InputError(LongVieError):
    """Something the user brought cannot be used."""

    exit_code = 5


class MediaError(InputError):
    """A video, image or sound file cannot be read, or does not fit the request."""


class ControlError(InputError):
    """Depth, tracks or a cond.json cannot be used."""


class SettingsError(InputError):
    """A settings file, prompt file or environment variable holds something unknown or invalid."""


class ResumableError(LongVieError):
    """Work stopped early, everything made so far is saved, and the same command continues."""

    exit_code = 75


class OtherProcessEnded(ResumableError):
    """Another process of the same job has ended, so this one cannot go on."""


class StoppedBySignal(LongVieError):
    """Ctrl-C or SIGTERM ended the work; everything made so far is saved."""

    def __init__(self, signal_number: int, *, hint: str = "") -> None:
        super().__init__(f"Stopped by {signal.Signals(signal_number).name}.", hint=hint)
        self.exit_code = 128 + signal_number
