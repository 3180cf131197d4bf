"""Bytes <-> frames of spectra. One wire format is one row of `DECODERS` and one of `ENCODERS`.

A frame holds many spectra of one line and instrument. A message that is no frame at all raises BadMessage; a frame with
some bad rows gives the good ones and, beside them, each bad row with its reason: nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from .. import BadMessage, BadSettings
from ..models.axis import Axis
from .frame import MOST_TEXT, QUANTITIES, REFERENCES, RESERVED, BadRow, Frame, set_aside

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"
RAW = "application/octet-stream"
JSON = "application/json"

FRAME_VERSION = 1
MOST_TARGETS = 64  # columns of laboratory values in one frame
LEAST_ROW_BYTES = 8
RAW_DTYPES = {"float32": np.dtype("<f4"), "uint16": np.dtype("<u2")}

_MOST_TIMESTAMP_S = 7_258_118_400.0  # the year 2200

Axes = Mapping[str, Axis]
Message = tuple[bytes, dict[str, str]]  # a value and its headers


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    timestamp_s: float

    @property
    def place(self) -> str:
        """Where it stands, for logs and errors: topic[partition]@offset."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def id(self) -> str:
        """The same whenever it is read: what its results and its nameless spectra are called after."""
        return f"{self.topic}-{self.partition}-{self.offset}"


# --- decoding ---------------------------------------------------------------------------------------------------------


def decode(record: Record, axes: Axes, most_bytes: int) -> tuple[Frame, list[BadRow]]:
    """A message as a frame, and the rows that had to be set aside.

    Args:
        axes: the axes that a message may name instead of listing their values, by name or by id.
        most_bytes: the cap on a frame.

    Raises:
        BadMessage: there is no frame in these bytes; the text begins with where they came from.
    """
    content_type = record.headers.get("content-type", ARROW).split(";")[0].strip().lower()
    try:
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
        if max(len(frame.line), len(frame.instrument)) > MOST_TEXT:
            raise BadMessage(f"expected at most {MOST_TEXT} characters in line and instrument", "line")
    except BadMessage as error:
        raise BadMessage(f"{record.place}: {error}", error.reason) from error
    except Exception as error:
        raise BadMessage(
            f"{record.place}: expected a frame, got {type(error).__name__}: {error!s:.200}", "unreadable"
        ) from error
    return frame, bad


def _decode_arrow(record: Record, axes: Axes) -> tuple[Frame, list[BadRow]]:
    table = read_arrow(record.value)
    meta = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (table.schema.metadata or {}).items()
    }
    version = meta.get("tamis.frame", str(FRAME_VERSION))
    if version != str(FRAME_VERSION):
        raise BadMessage(f"expected tamis.frame version {FRAME_VERSION}, got {version!r}", "frame_version")
    axis = _axis_of_text(meta.get("axis"), meta.get("axis_unit"), axes)
    n = table.num_rows
    _check_rows(n, record)
    if len(set(table.column_names)) != table.num_columns:
        raise BadMessage(f"expected every column once, got {table.column_names!s:.200}", "column_names")
    spectra, lengths, ragged = _arrow_spectra(table)
    names = [name for name in table.column_names if name not in RESERVED and _is_number(table[name].type)]
    _check_targets(names)

    def texts(name: str) -> list[str] | None:
        if name not in table.column_names:
            return None
        return ["" if value is None else str(value) for value in column_values(table[name], name)]

    def numbers(name: str) -> np.ndarray | None:
        return None if name not in table.column_names else _arrow_numbers(table[name], name)

    frame = Frame(
        line=meta.get("line", ""),
        instrument=meta.get("instrument", ""),
        axis=axis,
        quantity=_quantity(meta.get("quantity", "unknown")),
        spectra=spectra,
        spectrum_id=_ids(texts("spectrum_id"), record, n),
        time=_arrow_time(table, record, n),
        object_id=texts("object_id"),
        x=numbers("x"),
        y=numbers("y"),
        targets={name: _arrow_numbers(table[name], name) for name in names},
        reference=_reference(meta.get("reference", "")),
    )
    return set_aside(frame, lengths, ragged)


def read_arrow(value: bytes) -> pa.Table:
    """An Arrow stream whose buffers hold what they say.

    Raises:
        BadMessage: it is none.
    """
    import pyarrow as pa

    try:
        # A compressed body says how large it will be only while it is being unpacked, and 8 kB may become gigabytes.
        if any(_is_compressed(message) for message in pa.ipc.MessageReader.open_stream(value)):
            raise BadMessage("expected Arrow without compression of its own: let Kafka compress", "compressed")
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)  # crafted offsets would otherwise read outside the buffer
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadMessage(f"expected an Arrow stream, got {_glimpse(value)}: {first:.300}", "not_arrow") from error
    return table


def column_values(column: pa.ChunkedArray, name: str) -> list[Any]:
    """A column of texts, numbers, times or booleans as Python values, in memory that its bytes bound.

    Views, runs and lists of nothing say a thing a million times in a few bytes: a message has no use for them.

    Raises:
        BadMessage: it is of another type.
    """
    import pyarrow as pa

    kind = column.type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    if not (texts or _is_number(plain) or pa.types.is_boolean(plain) or pa.types.is_timestamp(plain)):
        raise BadMessage(f"expected column {name!r:.80} to hold texts or numbers, got {kind!s:.200}", "column_type")
    if not pa.types.is_dictionary(kind):
        return column.to_pylist()
    values: list[Any] = []
    for chunk in column.unify_dictionaries().chunks:
        words = chunk.dictionary.to_pylist()  # each made once, however often it stands there
        values += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
    return values


def _check_rows(n: int, record: Record) -> None:
    """A row that takes a kilobyte when it is set aside must not come in four bytes, or in none."""
    if n > len(record.value) // LEAST_ROW_BYTES:
        raise BadMessage(f"expected spectra, got {n} rows in {len(record.value)} bytes", "no_spectrum")


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether a batch has a BodyCompression: the fourth field of its flatbuffer, where that is there.

    References: Message.fbs and Schema.fbs of the Arrow columnar format; FlatBuffers internals (tables and vtables).
    """
    raw = message.metadata.to_pybytes()

    def at(where: int, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(raw[where : where + size], "little", signed=signed)

    def field(table: int, number: int) -> int:
        """Where a table's field lies; 0 where it is not there."""
        vtable = table - at(table, 4, signed=True)
        offset = at(vtable + 4 + 2 * number, 2) if 4 + 2 * number < at(vtable, 2) else 0
        return table + offset if offset else 0

    def pointed(place: int) -> int:
        return place + at(place, 4) if place else 0

    batch = pointed(field(at(0, 4), 2))
    if batch and message.type == "dictionary":
        batch = pointed(field(batch, 1))  # a dictionary is a batch of one column
    return message.type in ("record batch", "dictionary") and batch > 0 and field(batch, 3) > 0


def _check_targets(names: Sequence[str]) -> None:
    if len(names) > MOST_TARGETS:
        raise BadMessage(f"expected at most {MOST_TARGETS} columns of values, got {len(names)}", "column_names")
    if any(len(name) > MOST_TEXT for name in names):
        raise BadMessage(f"expected at most {MOST_TEXT} characters in the name of a column", "column_names")


def _arrow_spectra(table: pa.Table) -> tuple[np.ndarray, np.ndarray, list[np.ndarray] | None]:
    """The matrix, each row's length, and the rows themselves where the lengths differ."""
    import pyarrow as pa

    if "spectrum" not in table.column_names:
        raise BadMessage(f"expected a column 'spectrum', got columns {table.column_names}", "no_spectrum")
    column = table["spectrum"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise BadMessage(f"expected column 'spectrum' to hold lists of numbers, got {kind}", "no_spectrum")
    if not _is_number(kind.value_type) or (pa.types.is_fixed_size_list(kind) and kind.list_size < 1):
        raise BadMessage(f"expected column 'spectrum' to hold lists of numbers, got {kind}", "no_spectrum")
    dtype = np.uint16 if kind.value_type == pa.uint16() else np.float32
    n = len(column)
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        flat = column.flatten()
        if not flat.null_count:
            values = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
            return values.reshape(n, kind.list_size), np.full(n, kind.list_size), None
    rows = [
        np.empty(0, np.float32) if item is None else np.array([math.nan if v is None else v for v in item], np.float32)
        for item in column.to_pylist()
    ]
    return np.empty((n, 0), np.float32), np.array([len(row) for row in rows], dtype=int), rows


def _arrow_numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    if not _is_number(column.type):
        raise BadMessage(f"expected column {name!r} to hold numbers, got {column.type}", "column_type")
    return column.to_numpy().astype(np.float64, copy=False)  # nulls become NaN


def _arrow_time(table: pa.Table, record: Record, n: int) -> np.ndarray:
    import pyarrow as pa

    if "time" not in table.column_names:
        return arrival(record, n)
    column = table["time"]
    if not pa.types.is_timestamp(column.type):
        raise BadMessage(f"expected column 'time' to hold timestamps, got {column.type}", "column_type")
    try:
        times = column.cast(pa.timestamp("us"), safe=False).to_numpy().astype("datetime64[us]")
    except pa.ArrowException as error:
        raise BadMessage(f"expected column 'time' to hold timestamps: {error}", "column_type") from error
    return np.where(np.isnat(times), arrival(record, n), times)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _decode_raw(record: Record, axes: Axes) -> tuple[Frame, list[BadRow]]:
    """The fast path: nothing but numbers, row after row, little-endian; the headers say the rest."""
    missing = [name for name in ("dtype", "bands", "line", "axis") if name not in record.headers]
    if missing:
        raise BadMessage(f"expected the headers dtype, bands, line, axis; missing {', '.join(missing)}", "headers")
    dtype = RAW_DTYPES.get(record.headers["dtype"])
    if dtype is None:
        known = " or ".join(RAW_DTYPES)
        raise BadMessage(f"expected header dtype {known}, got {record.headers['dtype']!r}", "headers")
    axis = _axis(record.headers["axis"], None, axes)
    if record.headers["bands"] != str(len(axis)):
        raise BadMessage(
            f"expected header bands {len(axis)} (axis {axis}), got {record.headers['bands']!r}", "band_count"
        )
    row_bytes = len(axis) * dtype.itemsize
    if len(record.value) % row_bytes:
        raise BadMessage(
            f"expected whole rows of {len(axis)} {record.headers['dtype']} bands ({row_bytes} bytes each), "
            f"got {len(record.value)} bytes",
            "band_count",
        )
    spectra = np.frombuffer(record.value, dtype).reshape(-1, len(axis))
    n = len(spectra)
    x, y = _raw_places(record.headers, n)
    frame = Frame(
        line=record.headers["line"],
        instrument=record.headers.get("instrument", ""),
        axis=axis,
        quantity=_quantity(record.headers.get("quantity", "unknown")),
        spectra=spectra,
        spectrum_id=_ids(None, record, n),
        time=arrival(record, n),
        x=x,
        y=y,
        reference=_reference(record.headers.get("reference", "")),
    )
    return frame, []  # its rows are whole, and what they are called and when they came is ours


def _raw_places(headers: Mapping[str, str], n: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rows of a line camera follow one another from pixel `x` of line `y`; the next line begins after `pixels`."""
    if "y" not in headers:
        return None, None
    given = [headers.get(name, default) for name, default in (("x", "0"), ("y", ""), ("pixels", str(1 << 30)))]
    if not all(text.isdecimal() and text.isascii() and len(text) <= 15 for text in given) or given[2] == "0":
        raise BadMessage(f"expected headers x, y and pixels as whole numbers, got {', '.join(given):.80}", "headers")
    first_x, first_y, pixels = map(int, given)
    y, x = np.divmod(first_x + np.arange(n), pixels)
    return x.astype(np.float64), (first_y + y).astype(np.float64)


def _decode_json(record: Record, axes: Axes) -> tuple[Frame, list[BadRow]]:
    """For people: {"line", "axis", "axis_unit", "spectra": [{"spectrum_id", "time", "spectrum": [...]}, ...]}."""
    try:
        document = orjson.loads(record.value)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected JSON, got {_glimpse(record.value)}: {error}", "not_json") from error
    if not isinstance(document, dict):
        raise BadMessage(f"expected a JSON object, got {type(document).__name__}", "json_shape")
    rows = document.get("spectra")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadMessage('expected "spectra": [{"spectrum": [...]}, ...], got another shape', "json_shape")
    for key in ("line", "instrument", "quantity", "axis_unit", "reference"):
        if not isinstance(document.get(key, ""), str):
            raise BadMessage(f'expected "{key}" to be a text, got {told(document[key])}', "json_shape")
    axis = _axis(document.get("axis"), document.get("axis_unit"), axes)
    n = len(rows)
    _check_rows(n, record)
    ids = _ids([_text(row.get("spectrum_id")) for row in rows], record, n)
    spectra: list[np.ndarray] = []
    time = arrival(record, n)
    unreadable: list[BadRow] = []
    for i, row in enumerate(rows):
        try:
            spectra.append(_json_spectrum(row.get("spectrum")))
            if row.get("time") is not None:
                time[i] = json_time(row["time"])
        except ValueError as error:
            del spectra[i:]
            spectra.append(np.empty(0, np.float32))
            unreadable.append(BadRow(i, ids[i][:MOST_TEXT], "json_shape", str(error), original=_json_text(row)))
    names = list(islice(dict.fromkeys(name for row in rows for name in row if name not in RESERVED), MOST_TARGETS + 1))
    _check_targets(names)
    frame = Frame(
        line=document.get("line", ""),
        instrument=document.get("instrument", ""),
        axis=axis,
        quantity=_quantity(document.get("quantity", "unknown")),
        spectra=np.empty((n, 0), np.float32),
        spectrum_id=ids,
        time=time,
        object_id=[_text(row.get("object_id")) for row in rows] if any("object_id" in row for row in rows) else None,
        x=_json_column(rows, "x"),
        y=_json_column(rows, "y"),
        targets={name: column for name in names if (column := _json_column(rows, name)) is not None},
        reference=_reference(document.get("reference", "")),
    )
    return set_aside(frame, np.array([len(row) for row in spectra], dtype=int), spectra, unreadable)


def _json_spectrum(value: Any) -> np.ndarray:
    if not isinstance(value, list):
        raise ValueError(f'expected "spectrum": [numbers], got {told(value)}')
    wrong = next((item for item in value if not (item is None or _is_json_number(item))), None)
    if wrong is not None:
        raise ValueError(f'expected "spectrum" to hold numbers, got {told(wrong)}')
    with np.errstate(over="ignore"):  # beyond float32 becomes inf, which the screening names
        return np.array([math.nan if item is None else float(item) for item in value], np.float32)


def json_time(value: Any) -> np.datetime64:
    """An ISO 8601 text (no zone = UTC), or seconds since 1970."""
    from datetime import UTC, datetime

    try:
        if _is_json_number(value):
            return np.datetime64(round(float(value) * 1e6), "us")
        if not isinstance(value, str):
            raise TypeError
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f'expected "time" as ISO 8601 or seconds since 1970, got {told(value)}') from error


def _json_column(rows: list[dict[str, Any]], name: str) -> np.ndarray | None:
    """The numbers under one key; None where no row has one."""

    def number(value: Any) -> float:
        return float(value) if _is_json_number(value) else math.nan

    column = np.array([number(row.get(name)) for row in rows])
    return None if np.isnan(column).all() else column


def _is_json_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def told(value: Any) -> str:
    """A JSON value for a message to people: short, however large or deep it is."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return f"{value!r:.60}"


def _json_text(row: dict[str, Any]) -> str | None:
    """A row as it came; None where it is nested deeper than can be written."""
    try:
        return orjson.dumps(row).decode()
    except TypeError:
        return None


DECODERS: dict[str, Callable[[Record, Axes], tuple[Frame, list[BadRow]]]] = {
    ARROW: _decode_arrow,
    RAW: _decode_raw,
    JSON: _decode_json,
}


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode(frame: Frame, content_type: str, most_bytes: int) -> Iterator[Message]:
    """A frame as messages of at most `most_bytes`: one as a rule, else halves of halves.

    Raises:
        BadSettings: one spectrum alone is over the cap. ValueError: the content type is unknown.
    """
    if content_type not in ENCODERS:
        raise ValueError(f"expected content-type {', '.join(ENCODERS)}; got {content_type!r}")
    value, headers = ENCODERS[content_type](frame)
    if len(value) <= most_bytes:
        yield value, {"content-type": content_type, **headers}
    elif len(frame) == 1:
        raise BadSettings(
            f"spectrum {frame.spectrum_id[0]!r:.80} alone takes {len(value)} bytes; frame_max_bytes is {most_bytes}"
        )
    else:
        half = len(frame) // 2
        yield from encode(frame[:half], content_type, most_bytes)
        yield from encode(frame[half:], content_type, most_bytes)


def _encode_arrow(frame: Frame) -> Message:
    import pyarrow as pa

    kind = pa.uint16() if frame.spectra.dtype == np.uint16 else pa.float32()
    flat = pa.array(np.ascontiguousarray(frame.spectra).reshape(-1), kind)
    columns: dict[str, Any] = {
        "spectrum": pa.FixedSizeListArray.from_arrays(flat, len(frame.axis)),
        "spectrum_id": pa.array(frame.spectrum_id, pa.string()),
        "time": pa.array(frame.time, pa.timestamp("us", "UTC")),
    }
    optional = {"object_id": frame.object_id, "x": frame.x, "y": frame.y, **frame.targets}
    columns |= {name: pa.array(values) for name, values in optional.items() if values is not None}
    metadata = {
        "tamis.frame": str(FRAME_VERSION),
        "line": frame.line,
        "instrument": frame.instrument,
        "axis": orjson.dumps(frame.axis.values.tolist()),
        "axis_unit": frame.axis.unit,
        "quantity": frame.quantity,
        "reference": frame.reference,
    }
    return arrow_bytes(pa.table(columns), metadata), {}


def arrow_bytes(table: pa.Table, metadata: Mapping[str, str | bytes]) -> bytes:
    """A table and what its schema says, as one Arrow stream."""
    import pyarrow as pa

    table = table.replace_schema_metadata(dict(metadata))
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue().to_pybytes()


def warm_up() -> None:
    """What the first message would wait for: pyarrow looks for pandas, which takes a third of a second."""
    import pyarrow as pa

    arrow_bytes(pa.table({"": [""]}), {})


def _encode_raw(frame: Frame) -> Message:
    """Numbers alone: ids, times and targets do not travel, and the axis goes by its id (the reader must know it).

    Places on the belt do, where the rows are pixels of camera lines that follow one another.
    """
    dtype = "uint16" if frame.spectra.dtype == np.uint16 else "float32"
    headers = {
        "dtype": dtype,
        "bands": str(len(frame.axis)),
        "line": frame.line,
        "instrument": frame.instrument,
        "axis": frame.axis.id,
        "quantity": frame.quantity,
        **_place_headers(frame),
        **({"reference": frame.reference} if frame.reference else {}),
    }
    return np.ascontiguousarray(frame.spectra, RAW_DTYPES[dtype]).tobytes(), headers


def _place_headers(frame: Frame) -> dict[str, str]:
    """As `_raw_places` reads them; none where rows do not follow one another."""
    if frame.x is None or frame.y is None or not len(frame):
        return {}
    turns = np.flatnonzero(np.diff(frame.y))
    try:
        headers = {"x": str(int(frame.x[0])), "y": str(int(frame.y[0]))}
        headers |= {"pixels": str(int(frame.x[turns[0]]) + 1)} if len(turns) else {}
        x, y = _raw_places(headers, len(frame))
    except (BadMessage, ValueError, OverflowError):  # a place below zero, or none
        return {}
    return headers if np.array_equal(x, frame.x) and np.array_equal(y, frame.y) else {}  # type: ignore[arg-type]


def _encode_json(frame: Frame) -> Message:
    optional = {"object_id": frame.object_id, "x": frame.x, "y": frame.y, **frame.targets}
    columns = {name: list(values) for name, values in optional.items() if values is not None}
    times = np.datetime_as_string(frame.time, unit="us", timezone="UTC")
    rows = [
        {
            "spectrum_id": frame.spectrum_id[i],
            "time": None if np.isnat(frame.time[i]) else times[i],
            **{name: values[i] for name, values in columns.items()},
            "spectrum": frame.spectra[i],
        }
        for i in range(len(frame))
    ]
    document = {
        "line": frame.line,
        "instrument": frame.instrument,
        "quantity": frame.quantity,
        "axis_unit": frame.axis.unit,
        "reference": frame.reference,
        "axis": frame.axis.values,
        "spectra": rows,
    }
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), {}


ENCODERS: dict[str, Callable[[Frame], Message]] = {ARROW: _encode_arrow, RAW: _encode_raw, JSON: _encode_json}


# --- what the formats share -------------------------------------------------------------------------------------------


def _axis(given: Any, unit: str | None, axes: Axes) -> Axis:
    """The axis a message lists, or the known one it names."""
    if given is None:
        raise BadMessage("expected an axis, got none", "no_axis")
    if isinstance(given, str):
        if given not in axes:
            known = "; ".join(f"{name!r}: {axis}" for name, axis in sorted(axes.items())) or "none"
            raise BadMessage(f"unknown axis {given!r:.80}; known: {known}", "unknown_axis")
        return axes[given]
    if not unit:
        raise BadMessage("expected axis_unit nm or cm-1 beside the axis, got none", "no_axis")
    if not isinstance(given, list) or not all(map(_is_json_number, given)):
        raise BadMessage(f"expected an axis of numbers, got {told(given)}", "bad_axis")
    try:
        return Axis(np.array(given, dtype=np.float64), unit)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMessage(f"expected an axis: {error}", "bad_axis") from error


def _axis_of_text(given: str | None, unit: str | None, axes: Axes) -> Axis:
    """An axis as JSON numbers, or the name of a known one."""
    if given is None or not given.lstrip().startswith("["):
        return _axis(given, unit, axes)
    return _listed_axis(given, unit)


@lru_cache(maxsize=256)
def _listed_axis(numbers: str, unit: str | None) -> Axis:
    """A line sends the same axis with every frame: it is read once."""
    try:
        return _axis(orjson.loads(numbers), unit, {})
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"expected the axis as JSON numbers: {error}", "bad_axis") from error


def _quantity(given: str) -> str:
    if given not in QUANTITIES:
        raise BadMessage(f"expected quantity {', '.join(QUANTITIES)}; got {given!r:.60}", "quantity")
    return given


def _reference(given: str) -> str:
    if given not in REFERENCES:
        raise BadMessage(f"expected reference white or dark, got {given!r:.60}", "reference")
    return given


def _ids(given: list[str] | None, record: Record, n: int) -> list[str]:
    """A spectrum without an id is called after its place, so that a second reading gives it the same name."""
    place = record.id
    if given is None:
        return list(map(place.__add__, _row_numbers(n)))
    return [name or f"{place}-{i}" for i, name in enumerate(given)]


@lru_cache(maxsize=2)
def _row_numbers(n: int) -> list[str]:
    """'-0' to '-(n - 1)': messages of one line are alike in size."""
    return [f"-{i}" for i in range(n)]


def arrival(record: Record, n: int) -> np.ndarray:
    """When the message came to the broker; not known where a producer stamped it in another unit than ms."""
    sensible = 0 <= record.timestamp_s < _MOST_TIMESTAMP_S
    return np.full(n, np.datetime64(round(record.timestamp_s * 1e6) if sensible else "NaT", "us"))


def _text(value: Any) -> str:
    return "" if value is None else told(value) if isinstance(value, list | dict) else str(value)


def _glimpse(value: bytes) -> str:
    return f"{len(value)} bytes beginning {value[:12]!r}"
