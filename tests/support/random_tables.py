"""A random table of spectra as a laboratory's CSV and, with types, as Parquet; and what both must be read as."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tamis.streamer.files.columns import plain
from tamis.streamer.files.options import ReadOptions

VARIETIES = ("Weizen", "Gerste grün", "maïs, doux", "avoine; noire", "Rye | 2", 'the "best"')
_NO_VALUE = ("", "NA", "n.d.", "<0.05", "< LOD", "-", "NaN")
_ABOVE = (
    "Instrument: NIR 5000", "Serial{d}00123", "# exported by hand", "Operator{d}A. Öz{d}{d}", "Scans{d}32{d}Gain{d}1.5",
    "Date: 02.01.2026", "",
)  # fmt: skip
_TARGETS = ("fat", "Protein (%)", "dry matter [g/kg]", "P2O5", "C18:1", "2019", "N", "5")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a table is written. Marks, names and styles are drawn one by one, so that a failing form shrinks."""

    seed: int
    rows: int
    delimiter: str
    decimal: str
    encoding: str
    line_end: str
    above: tuple[str, ...]
    says_separator: bool
    id_name: str
    id_style: str
    object_name: str
    repeats: int
    targets: tuple[str, ...]
    prefix: str
    unit: str
    is_wavenumber: bool
    step: float
    grouped: str
    no_values: tuple[str, ...]
    missing_bands: bool
    is_shuffled: bool
    bands_shuffled: bool
    descends: bool
    trailing: str
    row_names: bool
    quotes: str
    blank_lines: bool
    unit_row: bool
    has_variety: bool


def forms() -> st.SearchStrategy[Form]:
    """Every form, each choice independent of the others."""
    some, flag = st.sampled_from, st.booleans()
    forms = st.builds(
        Form,
        seed=st.integers(0, 2**20),
        rows=some((5, 8, 13, 70)),
        delimiter=some(",;\t|"),
        decimal=some(".,"),
        encoding=some(("utf-8", "utf-8-sig", "utf-16", "cp1252")),
        line_end=some(("\n", "\r\n")),
        above=st.lists(some(_ABOVE), max_size=4).map(tuple),
        says_separator=flag,
        id_name=some(("spectrum_id", "Spectrum ID", "sample_id", "Sample", "id", "Code", "Probe", "name", "")),
        id_style=some(("numbers", "001", "1.10", "texts", "none")),
        object_name=some(("", "object_id", "Sample ID", "sample")),
        repeats=st.integers(1, 3),
        targets=st.lists(some(_TARGETS), min_size=1, max_size=3, unique=True).map(tuple),
        prefix=some(("", "X", "nm_", "R", "A.", "NIR ", "abs-", "x_")),
        unit=some(("", " nm", "nm", " NM")),
        is_wavenumber=flag,
        step=some((1.0, 2.5, 0.25, 10.0, 7.72)),
        grouped=some(("", "", ",", ".", " ", "'")),
        no_values=st.lists(some(_NO_VALUE), max_size=3).map(tuple),
        missing_bands=flag,
        is_shuffled=flag,
        bands_shuffled=flag,
        descends=flag,
        trailing=some(("", "", "rows", "all")),
        row_names=flag,
        quotes=some(("needed", "texts", "all")),
        blank_lines=flag,
        unit_row=flag,
        has_variety=flag,
    )
    forms = forms.filter(lambda form: not form.row_names or form.id_name != "")  # else the rows have two names
    return forms.filter(lambda form: plain(form.id_name) != plain(form.object_name) or not form.id_name)


@dataclass(frozen=True)
class Truth:
    """What the files hold.

    Attributes:
        axis: (bands,) ascending. spectra: (n, bands). columns: all the others that have a name: float64 or texts.
    """

    axis: np.ndarray
    spectra: np.ndarray
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class Written:
    """Both files, how they are to be read, and what they hold.

    Attributes:
        spectra_only: as `csv`, without the targets; they are in `laboratory`, in another order and by the same names.
    """

    csv: Path
    parquet: Path
    spectra_only: Path
    laboratory: Path
    reading: ReadOptions
    truth: Truth


def write(form: Form, folder: Path, bands: int = 20) -> Written:
    rows = form.rows
    rng = np.random.default_rng(form.seed)
    draw = Random(form.seed)
    start = 3999.5 if form.is_wavenumber else 950.0
    axis = np.round(start + form.step * np.arange(bands), 2)
    scores = rng.normal(size=(rows, 3))
    shapes = np.array([np.exp(-(((np.arange(bands) - at) / 4) ** 2)) for at in (4, 10, 15)])
    spectra = np.round(0.8 + scores @ shapes * 0.1 + rng.normal(size=(rows, bands)) * 1e-3, 6)
    if form.missing_bands:
        spectra[rng.random(spectra.shape) < 0.02] = np.nan
    columns: dict[str, np.ndarray] = {}
    if form.id_style != "none":
        columns[form.id_name] = _ids(form, rows)
    if form.object_name and form.object_name not in columns:
        columns[form.object_name] = np.array([f"o{i // form.repeats}" for i in range(rows)], object)
    for at, name in enumerate(form.targets):
        columns[name] = np.round(10 + 2 * scores[:, at % 3] + rng.normal(size=rows) * 0.05, 2)
    if form.has_variety:
        columns["variety"] = np.array([draw.choice(VARIETIES) for _ in range(rows)], object)
    words: dict[tuple[str, int], str] = {}
    for text in form.no_values:
        name, row = draw.choice(form.targets), draw.randrange(rows)
        columns[name][row] = np.nan
        words[name, row] = text
    names = [_band_name(form, value) for value in axis]
    cells: dict[str, list[str]] = {}
    for name, values in columns.items():
        cells[name] = [words.get((name, i)) or _text(form, value) for i, value in enumerate(values.tolist())]
    for at, name in enumerate(names):
        cells[name] = [_text(form, value) for value in spectra[:, at].tolist()]
    order = [*columns, *(names[::-1] if form.descends else names)]
    if form.is_shuffled:  # columns stand anywhere, even among the bands
        beside = list(columns)
        order = names[::-1] if form.descends else list(names)
        for name in beside:
            order.insert(draw.randrange(len(order) + 1), name)
    if form.bands_shuffled:
        draw.shuffle(order)
    if "" in order:  # as R and pandas write names of rows
        order = ["", *[name for name in order if name]]
    csv, parquet = folder / "lab.csv", folder / "lab.parquet"
    alone, laboratory = folder / "spectra.csv", folder / "values.csv"
    csv.write_bytes(_csv(form, order, cells, rows).encode(form.encoding, "replace"))
    without = [name for name in order if name not in form.targets]
    alone.write_bytes(_csv(form, without, cells, rows).encode(form.encoding, "replace"))
    if form.id_style != "none":
        turned = list(range(rows))
        draw.shuffle(turned)
        others = {name: [cells[name][at] for at in turned] for name in (form.id_name, *form.targets)}
        plain = replace(form, trailing="", row_names=False)
        laboratory.write_bytes(_csv(plain, list(others), others, rows).encode(form.encoding, "replace"))
    everything = columns | {name: spectra[:, at] for at, name in enumerate(names)}
    typed = {name or "row_name": _typed(form, name, everything[name]) for name in order}
    if form.id_style == "numbers":
        typed.pop("row_name", None)
    pq.write_table(pa.table(typed), parquet)
    unit = None if form.unit else "cm-1" if form.is_wavenumber else "nm"
    reading = ReadOptions(axis_unit=unit, encoding="cp1252" if form.encoding == "cp1252" else None)
    return Written(csv, parquet, alone, laboratory, reading, Truth(axis, spectra, _read_as(form, columns)))


def _read_as(form: Form, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names of spectra and samples are texts, others by what they hold: 1.10 is a number, 001 is none."""
    found = dict(columns)
    if form.id_style in ("numbers", "1.10") and form.id_name == "Code":
        found["Code"] = np.array([float(text.replace(",", ".")) for text in columns["Code"]])
    if "" in found:
        names = found.pop("")
        found |= {} if form.id_style == "numbers" else {"row_name": names}
    return found


def _ids(form: Form, rows: int) -> np.ndarray:
    styles = {
        "numbers": lambda i: str(i + 1),
        "001": lambda i: f"{i + 1:03d}",
        "1.10": lambda i: f"1{form.decimal if form.id_name == 'Code' else '.'}{i + 1}0",
        "texts": lambda i: f"Nr. {i + 1} ö",
    }
    return np.array([styles[form.id_style](i) for i in range(rows)], object)


def _band_name(form: Form, value: float) -> str:
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    decimal = {",": ".", ".": ","}.get(form.grouped, form.decimal)
    whole, point, rest = text.partition(".")
    if form.grouped and len(whole) == 4:
        whole = whole[0] + form.grouped + whole[1:]
    number = whole + (decimal if point else "") + rest
    unit = form.unit.lower().replace("nm", "cm-1") if form.is_wavenumber else form.unit
    prefix = form.prefix.replace("nm", "cm-1") if form.is_wavenumber else form.prefix
    return f"{prefix}{number}{unit}"


def _text(form: Form, value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else repr(value).replace(".", form.decimal)


def _typed(form: Form, name: str, values: np.ndarray) -> pa.Array:
    if name == form.id_name and form.id_style == "numbers":
        return pa.array([int(value) for value in values])
    if name == "Code" and form.id_style == "1.10":
        return pa.array([float(value.replace(",", ".")) for value in values])
    if values.dtype == object:
        return pa.array(values, pa.string())
    return pa.array(values, mask=np.isnan(values))


def _csv(form: Form, order: Sequence[str], cells: dict[str, list[str]], rows: int) -> str:
    mark, draw = form.delimiter, Random(form.seed)

    def line(values: Sequence[str], are_names: bool = False) -> str:
        written = []
        for name, value in zip(order, values, strict=True):
            is_text = are_names or name in (form.id_name, form.object_name, "variety")
            needed = any(sign in value for sign in (mark, '"'))
            quote = needed or form.quotes == "all" or (form.quotes == "texts" and is_text)
            written.append('"' + value.replace('"', '""') + '"' if quote else value)
        return mark.join(written)

    lines = [f"sep={mark}"] if form.says_separator else []
    lines += [text.format(d=mark) for text in form.above]
    header = line(order, are_names=True)
    lines.append(header + mark * (form.trailing == "all" and not form.row_names))
    last = mark * (form.trailing != "" and not form.row_names)
    if form.unit_row:
        unit = {name: "%" if name in form.targets else "" for name in order}
        lines.append(mark * form.row_names + line([unit[name] for name in order]) + last)
    for row in range(rows):
        first = f'"{row + 1}"{mark}' if form.row_names else ""
        lines.append(first + line([cells[name][row] for name in order]) + last)
        if form.blank_lines and draw.random() < 0.2:
            lines.append(draw.choice(("", mark * (len(order) - 1))))
    return form.line_end.join(lines) + form.line_end
