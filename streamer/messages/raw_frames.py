"""Frames as bare numbers: the fast path. The headers describe them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import BadMessage
from .checks import Axes, common_fields, known_axis, spectrum_ids
from .frame import Frame
from .record import Message, Record, arrival
from .screening import Screened

RAW_DTYPES = {"float32": np.dtype("<f4"), "uint16": np.dtype("<u2")}


def decode_raw(record: Record, axes: Axes) -> Screened:
    """Little-endian numbers, row after row; the headers describe them."""
    headers = record.headers
    if missing := [name for name in ("dtype", "bands", "line", "axis") if name not in headers]:
        raise BadMessage(f"expected the headers dtype, bands, line, axis; missing {', '.join(missing)}", "headers")
    dtype = RAW_DTYPES.get(headers["dtype"])
    if dtype is None:
        raise BadMessage(f"expected header dtype {' or '.join(RAW_DTYPES)}, got {headers['dtype']!r}", "headers")
    axis = known_axis(headers["axis"], None, axes)
    if headers["bands"] != str(len(axis)):
        raise BadMessage(f"expected header bands {len(axis)} (axis {axis}), got {headers['bands']!r}", "band_count")
    row_bytes = len(axis) * dtype.itemsize
    if len(record.value) % row_bytes:
        rows = f"whole rows of {len(axis)} {headers['dtype']} bands ({row_bytes} bytes each)"
        raise BadMessage(f"expected {rows}, got {len(record.value)} bytes", "band_count")
    spectra = np.frombuffer(record.value, dtype).reshape(-1, len(axis))
    n = len(spectra)
    frame = Frame(
        **common_fields(headers),
        axis=axis,
        spectra=spectra,
        spectrum_id=spectrum_ids(None, record, n),
        time=arrival(record, n),
        **_positions(headers, n),
    )
    return frame, []  # no bad rows: all are whole, and their names and times are our own


def _positions(headers: Mapping[str, str], n: int) -> dict[str, Any]:
    """Rows of a line camera are consecutive from pixel `x` of line `y`; a new line begins after `pixels`."""
    if "y" not in headers:
        return {}
    given = [headers.get(name, default) for name, default in (("x", "0"), ("y", ""), ("pixels", str(1 << 30)))]
    if not all(text.isdecimal() and text.isascii() and len(text) <= 15 for text in given) or given[2] == "0":
        raise BadMessage(f"expected headers x, y and pixels as whole numbers, got {', '.join(given):.80}", "headers")
    first_x, first_y, pixels = map(int, given)
    y, x = np.divmod(first_x + np.arange(n), pixels)
    return {"x": x.astype(np.float64), "y": (first_y + y).astype(np.float64)}


def encode_raw(frame: Frame) -> Message:
    """Numbers alone: ids, times and targets are not sent, and the axis only by its id, which the reader must know.

    Positions on the belt are sent if the rows are consecutive pixels of camera lines.
    """
    dtype = "uint16" if frame.spectra.dtype == np.uint16 else "float32"
    headers = {
        "dtype": dtype,
        "bands": str(len(frame.axis)),
        "line": frame.line,
        "instrument": frame.instrument,
        "axis": frame.axis.id,
        "quantity": frame.quantity,
        **_position_headers(frame),
        **({"reference": frame.reference} if frame.reference else {}),
    }
    return np.ascontiguousarray(frame.spectra, RAW_DTYPES[dtype]).tobytes(), headers


def _position_headers(frame: Frame) -> dict[str, str]:
    """As `_positions` reads them; none if the rows are not consecutive."""
    if frame.x is None or frame.y is None or not len(frame):
        return {}
    turns = np.flatnonzero(np.diff(frame.y))
    try:
        headers = {"x": str(int(frame.x[0])), "y": str(int(frame.y[0]))}
        headers |= {"pixels": str(int(frame.x[turns[0]]) + 1)} if len(turns) else {}
        read = _positions(headers, len(frame))
    except (BadMessage, ValueError, OverflowError):  # a negative position, or none
        return {}
    return headers if np.array_equal(read["x"], frame.x) and np.array_equal(read["y"], frame.y) else {}
