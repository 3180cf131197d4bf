"""Recorded files as a source, and a folder of JSON lines as a sink."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

import orjson

from ... import TamisError
from ..files.frames import read_frames
from ..files.options import ReadOptions
from ..messages.codec import encode
from ..messages.predictions import decode_predictions
from ..messages.record import ARROW, Record
from .protocols import Headers, Progress, Sink, Source


class FileSource(Source):
    """Recorded files whose frames pass through the same bytes, and so the same checks, as those of a broker."""

    def __init__(self, files: Sequence[Path], most_bytes: int, reading: ReadOptions) -> None:
        self._files = files
        name = Path(files[0]).name
        messages = chain.from_iterable(encode(frame, ARROW, most_bytes) for frame in read_frames(files, reading))
        self._records = (Record(name, 0, n, None, *message, time.time()) for n, message in enumerate(messages))
        self._ahead = next(self._records, None)  # a missing file is reported at once

    def poll(self, timeout_s: float) -> list[Record]:
        if self._ahead is None:
            return []
        record, self._ahead = self._ahead, next(self._records, None)
        return [record]

    def rewind(self) -> None:
        raise TamisError(f"{self._files[0]}: results could not be written; read it again from its beginning")

    @property
    def exhausted(self) -> bool:
        return self._ahead is None

    def close(self) -> None:
        self._records.close()


class FileSink(Sink):
    """A folder with a file of JSON lines for each topic, one object a spectrum or a rejected message.

    Raises:
        TamisError: the folder or a file cannot be written, or a file exists already: nothing is overwritten.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def send(self, topic: str, value: bytes, *, key: bytes | None = None, headers: Headers | None = None) -> None:
        path, headers = self._folder / f"{topic}.jsonl", headers or {}
        is_reject = "reason" in headers  # its own bytes may be anything
        rows = [{**headers, "bytes": value.hex()}] if is_reject else decode_predictions(value, headers)
        with _writing(path):
            if topic not in self._files:
                self._files[topic] = open(path, "xb")  # noqa: SIM115 (open until close())
            for row in rows:
                self._files[topic].write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))

    def flush(self, timeout_s: float, progress: Progress | None = None) -> bool:
        for file in self._files.values():
            with _writing(Path(file.name)):
                file.flush()
                os.fsync(file.fileno())
        return False

    def close(self) -> None:
        for file in self._files.values():
            with _writing(Path(file.name)):
                file.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise TamisError(f"{path} already exists: move it, or choose another folder") from error
    except OSError as error:
        raise TamisError(f"cannot write {path}: {error.strerror}") from error
