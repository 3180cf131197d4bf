"""One Kafka message, and the content types that Tamis reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ARROW = "application/vnd.apache.arrow.stream"
RAW = "application/octet-stream"
JSON = "application/json"
_MAX_TIMESTAMP_S = 7_258_118_400.0  # the year 2200
Message = tuple[bytes, dict[str, str]]  # a value and its headers


@dataclass(slots=True)
class Record:
    """One message as received; nothing changes it (to freeze it would double the time to make it).

    Attributes:
        unreadable: why the client could not unpack it; `value` is then what it could not unpack, often a whole batch.
        offsets: how many messages of the topic it stands for.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    timestamp_s: float
    unreadable: str = ""
    offsets: int = 1

    @property
    def next_offset(self) -> int:
        return self.offset + self.offsets

    @property
    def place(self) -> str:
        """topic[partition]@offset, for logs and errors."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def id(self) -> str:
        """The same at every reading: results, and spectra without an id, are named after it."""
        return f"{self.topic}-{self.partition}-{self.offset}"


def arrival(record: Record, n: int) -> np.ndarray:
    """(n,): when the broker got the message; NaT if a producer stamped it in another unit than ms."""
    return np.repeat(arrivals([record]), n)


def arrivals(records: Sequence[Record]) -> np.ndarray:
    """(messages,): when the broker got each."""
    stamps_s = np.array([record.timestamp_s for record in records])
    sensible = (stamps_s >= 0) & (stamps_s < _MAX_TIMESTAMP_S)
    times = np.round(np.where(sensible, stamps_s, 0.0) * 1e6).astype("datetime64[us]")
    times[~sensible] = np.datetime64("NaT", "us")
    return times


def iso(times: np.ndarray | np.datetime64) -> list[str | None]:
    """ISO 8601 in UTC to the microsecond, one text a time; None where it is unknown."""
    texts = np.datetime_as_string(np.atleast_1d(times), unit="us", timezone="UTC").tolist()
    return [None if text == "NaT" else text for text in texts]
