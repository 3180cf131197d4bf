"""Tamis: a self-supervised, continually learning stream processor for the spectra of sorting lines.

Every error that Tamis raises on purpose is one of these:

TamisError
  BadSettings      a setting is unknown or wrong: refused at start-up, by name
  BadMessage       bytes that can never be read: to the rejects, never retried
  BadFile          a recorded file that can not be read as spectra
  AxisMismatch     spectra that do not cover the grid of a model
  NoModel          no model is published under that name yet: wait, or publish one
  BadBundle        a model bundle that is damaged or of a foreign format: never loaded
  StoreUnusable    the model store can not be read or written
  BrokerAbsent     no broker answers, or it refuses us
  NotDelivered     the broker did not confirm a result: the batch is read again
  Fenced           another worker has our slot: this one must not write any more
  TooManyRejects   nearly all that comes is set aside: a person should look before the topic is emptied that way
  Stalled          messages are there and none comes: begin anew, in another process
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .streamer.files.table import read_table as read_spectra

__all__ = [
    "AxisMismatch", "BadBundle", "BadFile", "BadMessage", "BadSettings", "BrokerAbsent", "Fenced", "NoModel",
    "NotDelivered", "Stalled", "StoreUnusable", "TamisError", "TooManyRejects", "read_spectra",
]  # fmt: skip
__version__ = "0.1.0"

MAX_ERROR_TEXT = 4_000  # characters: errors quote what was received, and they go into logs


def __getattr__(name: str) -> Any:
    if name != "read_spectra":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .streamer.files.table import read_table

    return read_table


class TamisError(Exception):
    """Base of all errors that Tamis raises on purpose; its text is written for an operator."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}...")


class BadSettings(TamisError):
    pass


class BadMessage(TamisError):
    """``reason`` is a short fixed word for counting (``no_axis``, ``not_arrow``); the text says where and what."""

    def __init__(self, text: str, reason: str = "unreadable") -> None:
        super().__init__(text)
        self.reason = reason


class BadFile(TamisError):
    pass


class AxisMismatch(TamisError):
    pass


class NoModel(TamisError):
    pass


class BadBundle(TamisError):
    pass


class StoreUnusable(TamisError):
    pass


class BrokerAbsent(TamisError):
    pass


class NotDelivered(TamisError):
    pass


class Fenced(TamisError):
    pass


class TooManyRejects(TamisError):
    pass


class Stalled(TamisError):
    pass
