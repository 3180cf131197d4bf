"""Bruker OPUS files, by the library brukeropus."""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ....models.axis import MAX_BANDS
from ..options import ReadOptions
from .spectrum_file import Spectrum, moment, whole, words

MAX_BLOCKS = 256  # OPUS's own programs write at most 40
_RESULTS = {  # best first
    "a": "absorbance",
    "r": "reflectance",
    "t": "transmittance",
    "km": "Kubelka-Munk",
    "atr": "ATR",
    "logr": "log reflectance",
    "ra": "Raman",
    "e": "emission",
    "sm": "single channel of the sample",
}


def read_opus(stream: Any, options: ReadOptions, notes: list[str]) -> Iterator[Spectrum]:
    """One spectrum of a file: its absorbance if it has one, else its reflectance, and so on; others are noted.

    Raises ValueError, or what the library raises.
    """
    from brukeropus.file import Data, FileBlock, Parameters, pair_data_and_status_blocks, parse_directory, parse_header

    data = whole(stream)
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
    counts: Counter[str] = Counter()
    for values, status in pair_data_and_status_blocks(blocks):  # the last one of a kind first, as OPUS itself shows
        key = values.get_data_key() + "'" * values.type[4]  # a mark for each derivative
        counts[key] += 1
        pairs.setdefault(key, (values, status))
    key = next((key + marks for marks in ("", "'", "''") for key in _RESULTS if key + marks in pairs), None)
    if key is None:
        raise ValueError(f"expected a spectrum of a sample, got {', '.join(pairs) or 'none'}{series}")
    values, status = pairs[key]
    if not 2 <= status.data["npt"] <= MAX_BANDS or status.data["dpf"] != 1:
        raise ValueError(f"expected 2 to {MAX_BANDS} points of float32, got {status.data['npt']}")
    others = [
        f"{count} of {_named(other)}" if count > 1 else _named(other)
        for other, count in counts.items()
        if other != key and not _is_raw(other)
    ]
    what = _named(key) if counts[key] == 1 else f"last of {counts[key]} blocks of {_named(key)}"
    if key == "sm" or "'" in key or counts[key] > 1 or others or series:
        notes.append(f"the {what} was read{'; the file also holds ' * bool(others)}{' and '.join(others)}{series}")
    sample = dict(Parameters([block for block in blocks if block.is_sm_param()]).items()).get("snm", "")
    one = Data(values, status, key=key, vel=0)
    about = dict(one.params.items())
    time = moment(f"{about.get('dat', '')} {about.get('tim', '')}", "%d/%m/%Y", "%Y/%m/%d")
    name = words(str(sample).encode("latin-1", "replace"), options, notes)  # which is how the library decoded it
    yield Spectrum(one.x, one.y, about["dxu"], key, name, time, is_raman=key == "ra")


def _is_raw(key: str) -> bool:
    """Single channels, interferograms, phases and power spectra, which nearly every file has beside its result."""
    return key.endswith(("sm", "rf")) or key in ("ig", "ph", "pw")


def _named(key: str) -> str:
    kind = key.rstrip("'")
    return ("", "first derivative of the ", "second derivative of the ")[min(len(key) - len(kind), 2)] + _RESULTS.get(
        kind, f"block {kind!r}"
    )


def _has_positive_lengths(block: bytes) -> bool:
    """Whether each parameter's length is positive: the library would loop forever on a negative one."""
    at = 0
    while at + 8 <= len(block) and block[at : at + 3] != b"END":
        (length,) = struct.unpack_from("<h", block, at + 6)
        if length < 0:
            return False
        at += 8 + 2 * length
    return True
