"""Bytes <-> frames of spectra. A wire format is one row of `DECODERS` and one of `ENCODERS`.

A message that is no frame at all raises BadMessage. A frame with some bad rows gives the good ones and, beside them,
each bad row with its reason: nothing is lost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ... import BadMessage, BadSettings
from .arrow import schema_of
from .arrow_frames import are_joinable, decode_arrow, decode_arrow_run, encode_arrow
from .checks import Axes, spectrum_ids
from .frame import MAX_TEXT, Frame
from .json_frames import decode_json, encode_json
from .raw_frames import decode_raw, encode_raw
from .record import ARROW, JSON, RAW, Message, Record, arrivals
from .screening import Screened


def decode(record: Record, axes: Axes, most_bytes: int) -> Screened:
    """A message as a frame, and its bad rows.

    Args:
        axes: the axes that a message may name instead of listing their values, by name or by id.
        most_bytes: the cap on a frame.

    Raises:
        BadMessage: there is no frame in these bytes; the text begins with their topic, partition and offset.
    """
    content_type = record.headers.get("content-type", ARROW).split(";")[0].strip().lower()
    try:
        if record.unreadable:
            raise BadMessage(record.unreadable, "batch")
        if len(record.value) > most_bytes:
            raise BadMessage(f"expected at most {most_bytes} bytes in a frame, got {len(record.value)}", "too_large")
        if not record.value:
            raise BadMessage("expected a frame, got an empty message", "empty")
        decoder = DECODERS.get(content_type)
        if decoder is None:
            known = ", ".join(DECODERS)
            raise BadMessage(f"expected content-type {known}; got {content_type!r}", "content_type")
        frame, bad = decoder(record, axes)
        if not len(frame) and not bad:
            raise BadMessage("expected at least one spectrum, got a frame of none", "empty")
        if max(len(frame.line), len(frame.instrument)) > MAX_TEXT:
            raise BadMessage(f"expected at most {MAX_TEXT} characters in line and instrument", "line")
    except Exception as error:
        what, reason = f"expected a frame, got {type(error).__name__}: {error!s:.200}", "unreadable"
        if isinstance(error, BadMessage):
            what, reason = str(error), error.reason
        raise BadMessage(f"{record.place}: {what}", reason) from error
    return frame, bad


def form(record: Record) -> tuple[object, ...]:
    """Equal for messages of a partition that `decode_alike` can read together."""
    headers = record.headers
    content_type = headers.get("content-type")
    if content_type == ARROW and (schema := schema_of(record.value)) and are_joinable(schema):
        return record.topic, record.partition, schema, headers
    if content_type != RAW or "y" in headers or headers.get("reference"):
        return (record.place,)
    return record.topic, record.partition, len(record.value), headers


def decode_alike(records: Sequence[Record], axes: Axes, most_bytes: int) -> tuple[Frame, np.ndarray]:
    """Messages of one `form` as one frame, and the row where each begins.

    Raises BadMessage where one is not to be read so: it may be good by itself.
    """
    frame, _ = decode(records[0], axes, most_bytes)
    if records[0].headers["content-type"] == ARROW:
        if max(len(record.value) for record in records) > most_bytes:
            raise BadMessage(f"expected at most {most_bytes} bytes in each message")
        try:
            return decode_arrow_run(records, axes)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise BadMessage(f"expected Arrow streams: {error!s:.200}") from error
    n, bands = frame.spectra.shape
    spectra = np.frombuffer(b"".join([record.value for record in records]), frame.spectra.dtype).reshape(-1, bands)
    names = [name for record in records for name in spectrum_ids(None, record, n)]
    whole = replace(frame, spectra=spectra, spectrum_id=names, time=np.repeat(arrivals(records), n))
    return whole, np.arange(0, len(whole), n)


DECODERS: dict[str, Callable[[Record, Axes], Screened]] = {ARROW: decode_arrow, RAW: decode_raw, JSON: decode_json}


def encode(frame: Frame, content_type: str, most_bytes: int) -> Iterator[Message]:
    """A frame as messages of at most `most_bytes`: usually one, else halves of halves.

    Raises:
        BadSettings: one spectrum alone is over the cap. ValueError: the content type is unknown.
    """
    if content_type not in ENCODERS:
        raise ValueError(f"expected content-type {', '.join(ENCODERS)}; got {content_type!r}")
    value, headers = ENCODERS[content_type](frame)
    if len(value) <= most_bytes:
        yield value, {"content-type": content_type, **headers}
    elif len(frame) == 1:
        one = f"spectrum {frame.spectrum_id[0]!r:.80} alone"
        raise BadSettings(f"{one} takes {len(value)} bytes; frame_max_bytes is {most_bytes}")
    else:
        half = len(frame) // 2
        yield from encode(frame[:half], content_type, most_bytes)
        yield from encode(frame[half:], content_type, most_bytes)


ENCODERS: dict[str, Callable[[Frame], Message]] = {ARROW: encode_arrow, RAW: encode_raw, JSON: encode_json}
