"""Tamis: a self-supervised, continually learning stream processor for the spectra of sorting lines.

Every error that Tamis raises on purpose is a `TamisError`, and its class says what to do about it.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .streamer.files.many import read_table as read_spectra

__all__ = [
    "AxisMismatch", "BadBundle", "BadFile", "BadMessage", "BadSettings", "BrokerAbsent", "Fenced", "NoModel",
    "NotDelivered", "NotInstalled", "Stalled", "StoreUnusable", "TamisError", "TooManyRejects", "read_spectra",
]  # fmt: skip
__version__ = "0.1.0"

MAX_ERROR_TEXT = 4_000  # characters: errors quote what was received, and they go into logs


def __getattr__(name: str) -> Any:
    if name != "read_spectra":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .streamer.files.many import read_table

    return read_table


class TamisError(Exception):
    """Base of all errors that Tamis raises on purpose; its text is written for an operator."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}...")


class BadSettings(TamisError):
    """A setting is unknown or wrong: refused at start-up, by name."""


class BadMessage(TamisError):
    """Bytes that can never be read: they go to the rejects and are not retried.

    ``reason`` is a short fixed word for counting (``no_axis``, ``not_arrow``); the text says where and what.
    """

    def __init__(self, text: str, reason: str = "unreadable") -> None:
        super().__init__(text)
        self.reason = reason


class BadFile(TamisError):
    """A recorded file that cannot be read as spectra."""


class AxisMismatch(TamisError):
    """Spectra that do not cover the grid of a model."""


class NoModel(TamisError):
    """No model is published under that name yet: wait, or publish one."""


class BadBundle(TamisError):
    """A model bundle that is damaged or of a foreign format: never loaded."""


class StoreUnusable(TamisError):
    """The model store cannot be read or written."""


class NotInstalled(BadSettings, ImportError):
    """An optional part of Tamis is not installed; the text names the command that installs it."""


class BrokerAbsent(TamisError):
    """No broker answers, or it refuses the connection."""


class NotDelivered(TamisError):
    """The broker did not confirm a result: the batch is read again."""


class Fenced(TamisError):
    """Another worker has taken over this worker's place: this one must not write any more."""


class TooManyRejects(TamisError):
    """Nearly all messages are rejected: a person should look before the rest of the topic is rejected too."""


class Stalled(TamisError):
    """Messages are waiting and none arrives: start again in a new process."""


def require_learn(what: str) -> None:
    """Raises NotInstalled: `what` needs torch or lightly, which are only in the extra `learn`."""
    missing = [name for name in ("torch", "torchvision", "lightly") if find_spec(name) is None]
    if missing:
        raise NotInstalled(
            f"{what} needs {', '.join(missing)}, not installed here: pip install 'tamis[learn]' (docs/deploy.md says "
            "how to get the small CPU build of torch)"
        )
