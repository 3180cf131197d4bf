"""A line's predictions and decisions as messages, and the picture in a page."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import orjson
from PIL import Image

from tamis.streamer.messages.predictions import JSON_LINES

HEADERS = {"content-type": JSON_LINES, "line": "belt"}


def rows(lines: range, pixels: range, name: str, **more: Any) -> bytes:
    """Predictions of a rectangle of pixels."""
    return b"\n".join(
        orjson.dumps({"line": "belt", "spectrum_id": f"{y}-{x}", "x": x, "y": y, "sort": name,
                      "sort_confidence": 0.9, "sort_distance": 0.3, "sort=PE": 0.1, "sort=PET": 0.9, **more})
        for y in lines for x in pixels
    )  # fmt: skip


def decision(name: str, action: str, place: tuple[int, int, int, int], **more: Any) -> bytes:
    x_low, x_high, y_low, y_high = place
    row = {"line": "belt", "object_id": name, "action": action, "sort": "PET", "confidence": 0.97, "late": False,
           "time": "2026-01-02T03:04:05.000000Z", "reason": 'sort == "PET"', "x_low": x_low, "x_high": x_high,
           "y_low": y_low, "y_high": y_high} | more  # fmt: skip
    return orjson.dumps(row)


def picture(html: str) -> np.ndarray:
    """(pixels across, lines, 3): the first picture in a page, as an image library reads it."""
    data = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    assert data
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB"))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
