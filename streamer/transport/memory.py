"""A source and a sink in memory, for tests and for trying your own line."""

from collections import defaultdict

from ..messages.record import Record
from .protocols import MAX_POLL_RECORDS, Headers, Progress, Sink, Source


class MemorySource(Source):
    """Messages from a list; exhausted at its end."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.committed = 0
        self.note = ""
        self._position = self._handled = 0

    def poll(self, timeout_s: float) -> list[Record]:
        batch = self.records[self._position : self._position + MAX_POLL_RECORDS]
        self._position += len(batch)
        return batch

    def handled(self, record: Record) -> None:
        self._handled += 1

    def progress(self, note: str = "") -> Progress:
        return Progress({("memory", 0): self._handled}, note)

    def commit(self, progress: Progress, *, stored: bool = False) -> None:
        self.committed, self.note = max(self.committed, progress.offsets["memory", 0]), progress.note

    def rewind(self) -> None:
        self._position = self._handled = self.committed

    def lag_records(self) -> dict[tuple[str, int], int]:
        return {("memory", 0): len(self.records) - self._position}

    @property
    def exhausted(self) -> bool:
        return self._position >= len(self.records)


class MemorySink(Sink):
    """Messages by topic, as a reader would get them. The time of each is its number, so that runs can be compared."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Record]] = defaultdict(list)

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        sent = self.messages[topic]
        sent.append(Record(topic, 0, len(sent), key, value, dict(headers or {}), float(len(sent))))

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        return False
