"""A trainer without a broker: messages in a list, its own store and folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.ssl.replay_buffer import Buffer
from tamis.streamer.messages.codec import encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.labels import Label, encode_labels
from tamis.streamer.messages.record import ARROW, Record
from tamis.streamer.services.outbox import Outbox
from tamis.streamer.services.trainer import Trainer
from tamis.streamer.settings.load import load
from tamis.streamer.transport.memory import MemorySink, MemorySource

START = np.datetime64("2026-01-02T03:04:05", "us")


class Line:
    """A trainer between a list of messages and a store, no broker: its own store, folder and settings."""

    def __init__(self, folder: Path, model: Model, **table: Any) -> None:
        self.folder, self.store = folder / "trainer", Store(folder / "store")
        self.store.publish("default", model)
        self.table = {"folder": str(self.folder), "buffer_max_bytes": 8 << 20, "pretrain_spectra": 0, **table}
        self.settings = load(None, {"store": str(self.store.root), "trainer": self.table})
        self.source, self.sink = MemorySource([]), MemorySink()

    def arrives(self, *messages: tuple[bytes, dict[str, str]], topic: str = "spectra") -> None:
        for value, headers in messages:
            name = getattr(self.settings.topics, topic)
            self.source.records.append(Record(name, 0, len(self.source.records), None, value, headers, 0.0))

    def spectra(self, spectra: np.ndarray, axis: Axis, start: int = 0, **changes: Any) -> list[str]:
        """Arrive, ten seconds apart; gives their ids."""
        n = len(spectra)
        ids = [f"s{start + i}" for i in range(n)]
        frame = Frame(
            **{
                **{"line": "nir1", "instrument": "a", "axis": axis, "quantity": "absorbance"},
                **{"spectra": spectra.astype(np.float32), "spectrum_id": ids},
                "time": START + (start + np.arange(n)) * np.timedelta64(10, "s"),
                **changes,
            }
        )
        self.arrives(*encode(frame, ARROW, 900_000))
        return ids

    def labels(self, ids: list[str], values: np.ndarray) -> None:
        given = [Label(name, {"fat": float(v)}, START) for name, v in zip(ids, values, strict=True)]
        self.arrives(encode_labels(given), topic="labels")

    def values(self, *labels: dict[str, Any], **document: Any) -> None:
        """A message of labels in JSON, as a laboratory's program writes it."""
        given = {"labels": labels, **document} if labels else document
        self.arrives((json.dumps(given).encode(), {"content-type": "application/json"}), topic="labels")

    def trainer(self) -> Trainer:
        return Trainer(self.settings, self.source, self.store, outbox=Outbox(self.sink, 1.0))

    def run(self) -> Line:
        self.trainer().run()
        return self

    def buffer(self) -> Buffer:
        """The trainer's, after its run."""
        (path,) = self.folder.glob("buffer-*.sqlite")
        return Buffer(path, self.store.load("default")[0].grid, self.table["buffer_max_bytes"])

    @property
    def rejects(self) -> list[Record]:
        return self.sink.messages["tamis.label-rejects"]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        path = self.folder / "verdicts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def predict(self, spectra: np.ndarray, axis: Axis) -> np.ndarray:
        model, _ = self.store.load("default")
        return model.predict(spectra, axis).values[:, 0]

    def rmse(self, spectra: np.ndarray, axis: Axis, values: np.ndarray) -> float:
        return float(np.sqrt(np.mean((self.predict(spectra, axis) - values) ** 2)))
