"""Files of laboratory spectrometers: Bruker OPUS, Galactic SPC and JCAMP-DX, by the libraries of `tamis[instruments]`.

These libraries trust what they read. So the sizes that a file declares are checked first, against its length and
against limits, and any exception of theirs becomes BadFile.
"""

import io
import logging
import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from ... import BadFile
from ...models.axis import MAX_BANDS
from ..messages.frame import MAX_TEXT
from .columns import UNITS, BadRows, Batch, Content
from .options import ReadOptions

MAX_BYTES = 1 << 26  # of an OPUS or SPC file, which is held whole
MAX_SPECTRA = 1 << 16  # of an SPC file, whose library holds an object for each
MAX_BLOCKS = 256  # of an OPUS file: its own programs write at most 40
MAX_LINE = 1 << 10  # characters of JCAMP-DX, which asks for 80: a line of repeats unfolds to twice its square
MAX_TABLE = 1 << 20  # characters of one JCAMP-DX spectrum: 64 a value
# Formats that no suitable library reads.
UNREAD = {".asd": "ASD", ".sp": "PerkinElmer", ".spa": "Thermo OMNIC", ".wdf": "Renishaw WiRE"}
_QUANTITIES = {
    **dict.fromkeys(("absorbance", "a", "log(1/r)", "log 1/r", "yabsrb", "ylogdr"), "absorbance"),
    **dict.fromkeys(("reflectance", "r", "yreflec"), "reflectance"),
    **dict.fromkeys(("counts", "ycount"), "counts"),
}
_RESULTS = ("a", "r", "t", "km", "atr", "logr", "ra", "e", "sm")  # what OPUS may hold, best first; sm: a single channel
_SPC_VERSIONS = {0x4C: "one of big-endian machines", 0x4D: "one of before 1996"}
_TABLES = ("xydata", "xypoints")
_NUMBERS = ("npoints", "firstx", "lastx", "xfactor", "yfactor")
_LABELS = {*_TABLES, *_NUMBERS, "title", "xunits", "yunits", "longdate", "date", "time"}


class Spectrum(NamedTuple):
    """x and y are (bands,), time is ISO 8601 or ''. `_checked` translates the file's words for unit and quantity."""

    x: np.ndarray
    y: np.ndarray
    unit: str
    quantity: str
    sample: str
    time: str


def _open(
    kind: str,
    read: Callable[[Any], Iterator[Spectrum]],
    path: str,
    stream: Any,
    stack: ExitStack,
    options: ReadOptions,
) -> Content:
    """Every spectrum of a file; one with another axis or quantity than the first is a bad row."""
    rows = _checked(path, kind, read(stream))
    first = next(rows, None)
    if first is None:
        raise BadFile(f"{path}: expected spectra in the {kind} file, got none (peaks and NTUPLES are not supported)")
    head = first[1]

    def batches(bands: int, n: int, bad: BadRows) -> Iterator[Batch]:
        rest = chain([first], rows)
        while block := list(islice(rest, n)):
            good = []
            for row, one in block:
                if (one.unit, one.quantity) != (head.unit, head.quantity) or not np.array_equal(one.x, head.x):
                    bad.append((row, f"expected {_shown(head)}, as the first spectrum has; got {_shown(one)}"))
                else:
                    good.append((row, one))
            columns = {name: np.array([getattr(one, name) for _, one in good], object) for name in ("sample", "time")}
            values = np.array([one.y for _, one in good]).reshape(-1, bands)
            yield Batch(np.array([row for row, _ in good], np.int64), values, columns)

    meta = {"axis_unit": head.unit, "quantity": head.quantity}
    return Content(["sample", "time"], head.x, len(head.x), None, meta, batches)


def _shown(one: Spectrum) -> str:
    return f"{one.quantity} at {len(one.x)} points {one.x[0]:g} to {one.x[-1]:g} {one.unit:.40}"


def _checked(path: str, kind: str, spectra: Iterator[Spectrum]) -> Iterator[tuple[int, Spectrum]]:
    row = 0
    try:
        for one in spectra:
            if not 2 <= len(one.x) <= MAX_BANDS or one.x.shape != one.y.shape:
                raise ValueError(f"expected 2 to {MAX_BANDS} points, got {one.x.shape} x and {one.y.shape} y")
            row += 1
            with np.errstate(invalid="ignore"):  # a signalling NaN, which the axis refuses
                x = one.x.astype(np.float64)
            # Transmittance is unknown to Tamis: its numbers stay as they are.
            quantity = _QUANTITIES.get(one.quantity.strip().lower(), "unknown")
            yield row, Spectrum(x, one.y, _unit(one.unit), quantity, one.sample.strip()[:MAX_TEXT], one.time)
    except ImportError as error:
        needed = f"{kind} files need the library {error.name}: pip install 'tamis[instruments]'"
        raise BadFile(f"{path}: {needed}") from error
    except Exception as error:  # the libraries raise anything
        why = " ".join(str(error).split()) if type(error) is ValueError else f"{type(error).__name__} {error!s:.200}"
        raise BadFile(f"{path}: cannot be read as {kind} after {row} spectra: {why:.300}") from error


def _unit(text: str) -> str:
    """nm, um or cm-1; '' if there is none; else the file's own word, which the axis refuses by name."""
    word = text.strip().lower()
    inside = re.search(r"\(([^()]*)\)", word)  # 'Wavenumber (cm-1)'
    return UNITS.get(inside[1].strip() if inside else word, word)


def _time(text: str, *dates: str) -> str:
    """ISO 8601 of '16/03/2023 12:27:26.808 (GMT+1)' or '2011/10/18 12:13:14 +0100'; '' if no form of a date fits."""
    day, _, rest = text.strip().partition(" ")
    found = re.fullmatch(r"(\d+:\d+)(:\d+)?(\.\d{1,6})?\d*\s*(?:\(GMT)?([+-][\d.]+)?\)?", rest.strip() or "0:0")
    if found is None:
        return ""
    clock, zone = f"{found[1]}{found[2] or ':0'}{found[3] or '.0'}", found[4] or "0"
    for date in dates:
        with suppress(ValueError):
            hours = float(zone)
            if re.fullmatch(r"[+-]\d{4}", zone):
                hours = math.copysign(int(zone[1:3]) + int(zone[3:]) / 60, hours)
            moment = datetime.strptime(f"{day} {clock}", f"{date} %H:%M:%S.%f")
            return moment.replace(tzinfo=timezone(timedelta(hours=hours))).isoformat()
    return ""


def _whole(stream: Any) -> bytes:
    if len(data := stream.read(MAX_BYTES + 1)) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, got more")
    return data


def _spc(stream: Any) -> Iterator[Spectrum]:
    from spc_io import SpcRaw

    data = _whole(stream)
    logging.getLogger("spc_io").setLevel(logging.ERROR)  # it warns about data after the spectra
    flags, version, points, spectra = struct.unpack_from("<BB2xI16xI", data)
    if version != 0x4B:
        raise ValueError(f"expected an SPC file of version 0x4b, got {_SPC_VERSIONS.get(version, hex(version))}")
    if not flags & 0x40 and not 2 <= points <= MAX_BANDS:  # 0x40: each spectrum has its own number of points
        raise ValueError(f"expected 2 to {MAX_BANDS} points, got {points}")
    if not 1 <= spectra <= MAX_SPECTRA:
        raise ValueError(f"expected 1 to {MAX_SPECTRA} spectra, got {spectra}")
    # Without its log block, which is not needed and often broken.
    file: Any = SpcRaw.from_bytes_io(io.BytesIO(data[:248] + bytes(4) + data[252:]))
    header = file.main_header
    labels = [label.decode("latin-1") for label in data[218:248].split(b"\0")] if flags & 0x20 else []
    unit = labels[0] if labels else str(header.fxtype)
    quantity = labels[1] if len(labels) > 1 and labels[1].strip() else str(header.fytype)
    date = header.fdate
    time = _time(f"{date.year}/{date.month}/{date.day} {date.hour}:{date.min}", "%Y/%m/%d") if date.year > 1900 else ""
    for one in file.subs:
        if not flags & 0x04:  # a lone spectrum is scaled by the exponent of the file
            one.header.subexp = header.fexp
        x = one.xarray if flags & 0x40 else file.xarray
        x = np.linspace(header.ffirst, header.flast, points) if x is None else x
        yield Spectrum(x, one.yarray, unit, quantity, header.fcmnt.decode("latin-1"), time)


def _opus(stream: Any) -> Iterator[Spectrum]:
    """One spectrum of a file: its absorbance if it has one, else its reflectance, and so on."""
    from brukeropus.file import Data, FileBlock, Parameters, pair_data_and_status_blocks, parse_directory, parse_header

    data = _whole(stream)
    _, start, most, _ = parse_header(data)
    entries = parse_directory(data[start : start + 12 * min(max(most, 0), MAX_BLOCKS)])
    if any(size < 0 or at + size > len(data) for _, size, at in entries) or sum(e[1] for e in entries) > len(data):
        raise ValueError(f"expected blocks within the {len(data)} bytes of the file: it ends early")
    blocks, series = [], ""
    for kind, size, at in entries:
        block = FileBlock(data, kind, size, at)
        if block.is_data_series():
            series = ", and a series, which is not supported: save one spectrum a file"
        elif block.is_data() or (
            (block.is_data_status() or block.is_sm_param()) and _has_positive_lengths(block.bytes)
        ):
            block.parse()
            blocks += [block] if block.parse_error is None else []
    pairs: dict[str, Any] = {}
    for values, status in pair_data_and_status_blocks(blocks):  # the last one of a kind first, as OPUS itself shows
        pairs.setdefault(values.get_data_key(), (values, status))
    key = next((key for key in _RESULTS if key in pairs), None)
    if key is None:
        raise ValueError(f"expected a spectrum of a sample, got {', '.join(pairs) or 'none'}{series}")
    values, status = pairs[key]
    if not 2 <= status.data["npt"] <= MAX_BANDS or status.data["dpf"] != 1:
        raise ValueError(f"expected 2 to {MAX_BANDS} points of float32, got {status.data['npt']}")
    sample = dict(Parameters([block for block in blocks if block.is_sm_param()]).items()).get("snm", "")
    one = Data(values, status, key=key, vel=0)
    about = dict(one.params.items())
    time = _time(f"{about.get('dat', '')} {about.get('tim', '')}", "%d/%m/%Y", "%Y/%m/%d")
    yield Spectrum(one.x, one.y, about["dxu"], key, str(sample), time)


def _has_positive_lengths(block: bytes) -> bool:
    """Whether each parameter's length is positive: the library would loop forever on a negative one."""
    at = 0
    while at + 8 <= len(block) and block[at : at + 3] != b"END":
        (words,) = struct.unpack_from("<h", block, at + 6)
        if words < 0:
            return False
        at += 8 + 2 * words
    return True


def _jcamp(stream: Any) -> Iterator[Spectrum]:
    import jcamp

    for labels, block in _blocks(io.TextIOWrapper(stream, encoding="utf-8", errors="replace")):
        if not labels.keys() & set(_TABLES):  # it links other blocks, or holds peaks
            continue
        points = labels.get("npoints", "")
        if not re.fullmatch(r"[0-9]{1,9}", points) or not 2 <= int(points) <= MAX_BANDS:
            raise ValueError(f"expected NPOINTS of 2 to {MAX_BANDS}, got {points!r:.40}")
        with redirect_stdout(io.StringIO()) as printed:
            read = jcamp.read(block)
        if "Y-Check" in printed.getvalue():
            raise ValueError("expected each line to begin with the last value of the one before")
        if len(read["y"]) != int(points):
            raise ValueError(f"expected {points} points, as NPOINTS says; got {len(read['y'])}")
        date = labels.get("longdate") or labels.get("date", "")
        time = _time(date if ":" in date else f"{date} {labels.get('time', '')}", "%Y/%m/%d", "%y/%m/%d")
        xunits, yunits, title = (labels.get(name, "") for name in ("xunits", "yunits", "title"))
        yield Spectrum(read["x"], read["y"], xunits, yunits, title, time)


def _blocks(lines: io.TextIOBase) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The labels of each block, and its lines of numbers as the library wants them."""
    labels: dict[str, str] = {}
    block: list[str] = []
    label, held = "", 0
    for line in chain(iter(partial(lines.readline, MAX_LINE), ""), ["##END="]):
        text = line.partition("$$")[0].strip()
        if text.startswith("##"):
            name, _, value = text[2:].partition("=")
            label, value = re.sub(r"[\s/_-]", "", name).lower(), value.strip()
            if label in ("title", "end"):
                yield labels, block
                labels, block, held = {}, [], 0
            if label in _LABELS:
                labels[label] = value
            if label in _TABLES:
                block.append(f"##{label}={value.upper().replace(' ', '')}")
            elif label in _NUMBERS:
                block.append(f"##{label}={value}")
        elif label in _TABLES:
            block.append(text)
            held += len(line)
            if held > MAX_TABLE or len(line) == MAX_LINE:
                raise ValueError(f"expected lines of 80 characters and {MAX_TABLE} a spectrum, got more")


FORMATS = {
    ".spc": partial(_open, "SPC", _spc),
    ".opus": partial(_open, "OPUS", _opus),
    **dict.fromkeys((".jdx", ".dx", ".jcamp"), partial(_open, "JCAMP-DX", _jcamp)),
}
