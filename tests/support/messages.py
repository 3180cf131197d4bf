"""A small frame, and what becomes of it as a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tamis import BadMessage
from tamis.models.axis import Axis
from tamis.streamer.messages.codec import decode, encode
from tamis.streamer.messages.frame import Frame
from tamis.streamer.messages.record import Record
from tamis.streamer.messages.screening import BadRow

AXIS = Axis(np.array([1000.0, 1100.0, 1200.0, 1300.0]), "nm")
KNOWN = {"nir1": AXIS, AXIS.id: AXIS}


def frame(n: int = 3, dtype: Any = np.float32, **changes: Any) -> Frame:
    whole = Frame(
        line="line-1",
        instrument="spectrometer-7",
        axis=AXIS,
        quantity="absorbance",
        spectra=(np.arange(4 * n).reshape(n, 4) + 1).astype(dtype),
        spectrum_id=[f"s{i}" for i in range(n)],
        time=np.datetime64("2026-01-02T03:04:05.678901", "us") + np.arange(n),
        object_id=[f"o{i // 2}" for i in range(n)],
        x=np.arange(n, dtype=np.float32),
        y=None,
        targets={"fat": np.linspace(1, 2, n), "water": np.full(n, np.nan)},
    )
    return replace(whole, **changes)


def record(value: bytes, **headers: str) -> Record:
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return Record("tamis.spectra", 3, 99120, b"line-1", value, headers, 1767323045.0)


def read(value: bytes, **headers: str) -> tuple[Frame, list[BadRow]]:
    return decode(record(value, **headers), KNOWN, 900_000)


def refused(value: bytes, **headers: str) -> str:
    with pytest.raises(BadMessage) as refusal:
        read(value, **headers)
    assert str(refusal.value).startswith("tamis.spectra[3]@99120: "), "the message must say where"
    return str(refusal.value).removeprefix("tamis.spectra[3]@99120: ")


def message(given: Frame, content_type: str) -> Record:
    ((value, headers),) = encode(given, content_type, 900_000)
    return replace(record(value), headers=headers)
