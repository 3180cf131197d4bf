"""An ENVI image: what its header says, its numbers mapped from the disk, and what they mean.

Source: ENVI Header Files, in the documentation of ENVI (NV5 Geospatial).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .... import BadFile
from ....models.axis import MAX_BANDS
from ..encoding import decoded

MAX_HEADER_BYTES = 1 << 22
_NUMBERS = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4", "14": "i8", "15": "u8"}
_COMPLEX = {"6": "complex64", "9": "complex128"}
_INTERLEAVES = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (1, 2, 0)}  # where lines, samples and bands lie in the file
_SUFFIXES = (".img", ".dat", ".raw", ".hyspex", ".bin", ".bil", ".bip", ".bsq", ".sli")
_STANDARD = ("envi standard", "envi", "standard", "")
_HUGE = 1e30  # an ignore value of this size is the smallest or largest float, which programs write with few digits
Header = dict[str, str | list[str]]  # labels in lower case; texts, or lists in braces


@dataclass(frozen=True, slots=True)
class Image:
    """An image of which nothing is read yet.

    Attributes:
        shape: lines, samples, bands, as they stand in the file.
        kept: (good bands,) int, those that the bad bands list (bbl) leaves.
        wavelengths: (bands,), or None.
        ignore: the value that means no data, in the image's own type; None if there is none.
        gain, offset: (bands,) or one number; values of the image times the gain plus the offset are what it shows.
        quantity: as the header or the kind of gain says it, else 'unknown'.
        notes: how it is read, in sentences.
    """

    path: str
    header: Header
    file: Path
    kind: np.dtype[Any]
    offset_bytes: int
    interleave: str
    shape: tuple[int, int, int]
    kept: np.ndarray
    wavelengths: np.ndarray | None
    ignore: float | None
    gain: np.ndarray | float
    offset: np.ndarray | float
    scale: float
    quantity: str
    notes: list[str] = field(default_factory=list)

    @property
    def line_bytes(self) -> int:
        return self.shape[1] * self.shape[2] * self.kind.itemsize

    def mapped(self) -> np.ndarray:
        """(lines, samples, bands), a new mapping of the file."""
        places = _INTERLEAVES[self.interleave]
        stored = [0, 0, 0]
        for size, place in zip(self.shape, places, strict=True):
            stored[place] = size
        return np.memmap(self.file, self.kind, "r", self.offset_bytes, tuple(stored)).transpose(places)

    def values(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a block (n, bands) of the image shows, (n, good bands), and how many bands of each row have no data.

        No data is sought before scaling, and not in bad bands: they often hold nothing else.
        """
        spectra = block.astype(block.dtype.newbyteorder("="), copy=False)
        if len(self.kept) < self.shape[2]:
            spectra = spectra[:, self.kept]
        missing = np.zeros(len(spectra), np.int64)
        if self.ignore is not None:
            missing = self._is_ignored(spectra).sum(axis=1)
        exact = np.float32 if self.kind.kind == "f" or self.kind.itemsize <= 2 else np.float64
        exact = np.float64 if self.kind.itemsize == 8 else exact
        if not _is_plain(self.gain, self.offset):
            spectra = spectra.astype(exact) * self._of_band(self.gain, exact) + self._of_band(self.offset, exact)
        if self.scale != 1:
            spectra = spectra / np.float32(self.scale)
        return spectra, missing

    def _of_band(self, values: np.ndarray | float, exact: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, exact), self.shape[2])[self.kept]

    def _is_ignored(self, spectra: np.ndarray) -> np.ndarray:
        assert self.ignore is not None
        if np.isnan(self.ignore):
            return np.isnan(spectra)
        if spectra.dtype.kind == "f" and abs(self.ignore) >= _HUGE:
            return spectra >= _HUGE if self.ignore > 0 else spectra <= -_HUGE
        return spectra == spectra.dtype.type(self.ignore)


def open_image(path: str, encoding: str | None = None) -> Image:
    """The image beside a header.

    Raises:
        BadFile: the header cannot be read or contradicts itself, or there is no such image.
    """
    notes: list[str] = []
    header = _header(path, encoding, notes)
    if (kind := _text(header, "file type").lower()) not in _STANDARD:
        raise BadFile(f"{path}: expected an ENVI image of the file type ENVI Standard, got {kind[:40]!r}")
    if _text(header, "file compression") not in ("", "0"):
        raise BadFile(f"{path}: expected an image that is not compressed, got file compression = 1: save it without")
    for label in ("major frame offsets", "minor frame offsets"):
        if any(_float(path, label, one) for one in _list(header, label)):
            raise BadFile(f"{path}: expected an image without {label}, got {', '.join(_list(header, label)):.40}")
    lines, samples, bands = (_count(path, header, label) for label in ("lines", "samples", "bands"))
    if not 2 <= bands <= MAX_BANDS:
        raise BadFile(f"{path}: expected 2 to {MAX_BANDS} bands, got {bands}")
    number = _text(header, "data type")
    if number not in _NUMBERS:
        raise BadFile(
            f"{path}: expected real numbers in the image, data type {', '.join(_NUMBERS)}; "
            f"got {number or 'none':.20} {_COMPLEX.get(number, '')}".rstrip()
        )
    dtype = np.dtype(_NUMBERS[number])
    order = _text(header, "byte order")
    if order not in ("0", "1", ""):
        raise BadFile(f"{path}: expected byte order 0 or 1, got {order[:20]!r}")
    if not order and dtype.itemsize > 1:
        notes.append("the header has no byte order: read as 0, little-endian")
    dtype = dtype.newbyteorder(">" if order == "1" else "<")
    interleave = _text(header, "interleave").lower()
    if interleave not in _INTERLEAVES:
        raise BadFile(f"{path}: expected interleave bil, bip or bsq, got {interleave or 'none':.20}")
    offset_bytes = _count(path, header, "header offset") if "header offset" in header else 0
    file = _beside(path, notes)
    size, there = offset_bytes + lines * samples * bands * dtype.itemsize, file.stat().st_size
    if not 0 < size <= there or min(lines, samples) < 1 or offset_bytes < 0:
        raise BadFile(f"{path}: expected an image of {size} bytes, as the header says; got {there}")
    if size < there:
        notes.append(f"{file.name} has {there - size} bytes more than the header says: they are left out")

    wavelengths = _numbers(path, header, "wavelength", bands)
    gain, offset, scale, quantity = _scaling(path, header, bands, notes)
    return Image(
        path=path,
        header=header,
        file=file,
        kind=dtype,
        offset_bytes=offset_bytes,
        interleave=interleave,
        shape=(lines, samples, bands),
        kept=_kept(path, header, bands, wavelengths, notes),
        wavelengths=wavelengths,
        ignore=_ignore(path, header, dtype, notes),
        gain=gain,
        offset=offset,
        scale=scale,
        quantity=quantity,
        notes=notes,
    )


def _header(path: str, encoding: str | None, notes: list[str]) -> Header:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_HEADER_BYTES + 1)
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    if len(data) > MAX_HEADER_BYTES:
        raise BadFile(f"{path}: expected an ENVI header of at most {MAX_HEADER_BYTES} bytes")
    try:
        text, note = decoded(data, encoding)
    except ValueError as error:
        raise BadFile(f"{path}: expected an ENVI header and its image: {error}") from error
    notes += [note] if note else []
    lines = iter(text.splitlines())
    if not next(lines, "").strip().upper().startswith("ENVI"):
        raise BadFile(f"{path}: expected an ENVI header and its image, got {text[:20]!r}")
    header: Header = {}
    for line in lines:
        label, equals, value = line.partition("=")
        if not equals or line.startswith(";"):
            continue
        value = value.strip()
        if value.startswith("{"):
            parts = [value]
            while not parts[-1].rstrip().endswith("}"):
                if (more := next(lines, None)) is None:
                    raise BadFile(f"{path}: expected an ENVI header and its image: {label.strip()!r:.40} has no end")
                parts += [] if more.startswith(";") else [more]
            inside = " ".join(parts).strip().strip("{}").strip().removesuffix(",")
            header[" ".join(label.lower().split())] = [one.strip() for one in inside.split(",")] if inside else []
        else:
            header[" ".join(label.lower().split())] = value
    return header


def _beside(path: str, notes: list[str]) -> Path:
    stem = Path(path).with_suffix("")
    names = [stem, *(Path(f"{stem}{one}") for suffix in _SUFFIXES for one in (suffix, suffix.upper()))]
    there = [name for name in names if name.is_file()]
    if not there:
        raise BadFile(
            f"{path}: no image beside the header: expected {stem.name}, {stem.name}.img, {stem.name}.bip or the like"
        )
    if len(there) > 1:
        notes.append(f"{there[0].name} was read; {', '.join(name.name for name in there[1:])} beside it was not")
    return there[0]


def _scaling(path: str, header: Header, bands: int, notes: list[str]) -> tuple[Any, Any, float, str]:
    """Gain, offset, scale and quantity. Gains for reflectance go before those for radiance."""
    scale = _float(path, "reflectance scale factor", _text(header, "reflectance scale factor") or "1")
    if not np.isfinite(scale) or scale <= 0:
        raise BadFile(f"{path}: expected a reflectance scale factor above 0, got {scale:g}")
    quantity = _text(header, "quantity") or "unknown"
    for kind in ("data reflectance", "data"):
        gain, offset = (_numbers(path, header, f"{kind} {name} values", bands) for name in ("gain", "offset"))
        gain, offset = 1.0 if gain is None else gain, 0.0 if offset is None else offset
        if _is_plain(gain, offset):
            continue
        if not np.isfinite(gain).all() or not np.isfinite(offset).all():
            raise BadFile(f"{path}: expected finite {kind} gain and offset values")
        if scale != 1:
            raise BadFile(
                f"{path}: expected either {kind} gain values or a reflectance scale factor, got both (scale "
                f"{scale:g}): remove from the header the one that does not hold"
            )
        notes.append(f"{kind} gain values ({_range(gain)}) and offset values ({_range(offset)}) were applied")
        if kind == "data reflectance":
            quantity = "reflectance"
        return gain, offset, scale, quantity
    if scale != 1:
        notes.append(f"values were divided by the reflectance scale factor, {scale:g}")
    return 1.0, 0.0, scale, quantity


def _range(values: np.ndarray | float) -> str:
    low, high = np.min(values), np.max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _is_plain(gain: np.ndarray | float, offset: np.ndarray | float) -> bool:
    return bool(np.all(np.equal(gain, 1)) and np.all(np.equal(offset, 0)))


def _kept(path: str, header: Header, bands: int, wavelengths: np.ndarray | None, notes: list[str]) -> np.ndarray:
    listed = _numbers(path, header, "bbl", bands)
    good = np.ones(bands, bool) if listed is None else listed != 0
    if good.all():
        return np.arange(bands)
    if not good.any():
        notes.append(f"its bad bands list (bbl) marks all {bands} bands as bad: it was not followed")
        return np.arange(bands)
    if good.sum() < 2:
        raise BadFile(
            f"{path}: expected at least 2 good bands, got {good.sum()} of {bands} by its bad bands list (bbl)"
        )
    bad = np.flatnonzero(~good)
    runs = np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1)
    names = [f"band {band + 1}" if wavelengths is None else f"{wavelengths[band]:g}" for band in range(bands)]
    ranges = [f"{names[run[0]]} to {names[run[-1]]}" if len(run) > 1 else names[run[0]] for run in runs]
    shown = ", ".join(ranges[:4]) + (f" and {len(ranges) - 4} ranges more" if len(ranges) > 4 else "")
    notes.append(f"{len(bad)} of {bands} bands are bad by the header's list (bbl) and were left out: {shown}")
    return np.flatnonzero(good)


def _ignore(path: str, header: Header, dtype: np.dtype[Any], notes: list[str]) -> float | None:
    if not (text := _text(header, "data ignore value")):
        return None
    value = _float(path, "data ignore value", text)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not (np.isfinite(value) and value == int(value) and limits.min <= value <= limits.max):
            notes.append(f"the data ignore value {text:.40} cannot stand in {dtype.name}: no pixel was set aside by it")
            return None
    return value


def _text(header: Header, label: str) -> str:
    value = header.get(label, "")
    return value if isinstance(value, str) else ", ".join(value)


def _list(header: Header, label: str) -> list[str]:
    value = header.get(label, [])
    return [value] if isinstance(value, str) else value


def _count(path: str, header: Header, label: str) -> int:
    try:
        return int(_text(header, label)[:20])
    except ValueError as error:
        got = _text(header, label) or "none"
        raise BadFile(f"{path}: expected an ENVI header and its image: {label} of {got:.40}, not a number") from error


def _numbers(path: str, header: Header, label: str, bands: int) -> np.ndarray | None:
    """(bands,) of a list in the header, None without one or for an empty one."""
    texts = _list(header, label)
    if not texts:
        return None
    if len(texts) != bands:
        raise BadFile(f"{path}: expected {bands} numbers for {label!r}, one a band; got {len(texts)}")
    return np.array([_float(path, label, one) for one in texts])


def _float(path: str, label: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadFile(f"{path}: expected a number for {label!r} in the header, got {text!r:.40}") from error
