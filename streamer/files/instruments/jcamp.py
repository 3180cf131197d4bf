"""JCAMP-DX files: blocks of labels with one table, linked blocks, and the pages of NTUPLES. Tables: jcamp_table.py."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from ..encoding import decoded, detect
from ..options import ReadOptions
from .jcamp_table import Scale, read_table
from .spectrum_file import Spectrum, moment

MAX_LINE = 1 << 10  # characters: the standard asks for 80
MAX_TABLE = 1 << 20  # characters of one spectrum: 64 a value
MAX_WORDS = 1 << 14  # bytes of a block's labels that are not ASCII, by which its encoding is judged
_TABLES = ("xydata", "xypoints", "datatable")
_TUPLES = ("symbol", "units", "first", "last", "factor", "vardim")  # lists with a place for each variable
_LABELS = {
    *_TABLES,
    *_TUPLES,
    *("npoints", "firstx", "lastx", "deltax", "firsty", "xfactor", "yfactor"),
    *("title", "datatype", "xunits", "yunits", "longdate", "date", "time"),
}


@dataclass
class _Table:
    form: str  # '(X++(Y..Y))', in capitals and without blanks
    labels: dict[str, str]  # of its page
    lines: list[str] = field(default_factory=list)


@dataclass
class _Block:
    labels: dict[str, str] = field(default_factory=dict)
    tables: list[_Table] = field(default_factory=list)
    strange: bytes = b""  # its lines of labels that are not ASCII


def read_jcamp(stream: Any, options: ReadOptions, notes: list[str]) -> Iterator[Spectrum]:
    """Each table of spectra of each block and page; peaks are passed over. Raises ValueError."""
    encoding = options.encoding
    for block in _blocks(io.TextIOWrapper(stream, encoding="latin-1")):
        if block.strange and options.encoding is None:
            encoding = detect(block.strange, is_whole=True)
            _, note = decoded(block.strange, None)
            if note and not any(one.startswith(note.partition("(")[0]) for one in notes):
                notes.append(note)
        labels = {name: _text(value, encoding) for name, value in block.labels.items()}
        for table in block.tables:
            of_page = {**labels, **{name: _text(value, encoding) for name, value in table.labels.items()}}
            if (one := _spectrum(table, of_page, notes)) is not None:
                yield one


def _text(value: str, encoding: str | None) -> str:
    return value if value.isascii() else decoded(value.encode("latin-1"), encoding)[0].strip()


def _spectrum(table: _Table, labels: dict[str, str], notes: list[str]) -> Spectrum | None:
    """A table as a spectrum; None if it holds peaks or another list."""
    form = re.match(r"\((X\+\+\(([A-Z])\.\.\2\)|X([A-Z])\.\.X\3)\)?(.*)", table.form)
    if form is None and "PEAK" not in table.form:
        raise ValueError(f"expected a table of the form (X++(Y..Y)) or (XY..XY), got {table.form!r:.40}")
    if form is None or "PEAK" in form[4]:
        return None
    symbols = [one.strip().upper() for one in labels.get("symbol", "").split(",")]

    def of(variable: str, name: str) -> str:
        values = labels.get(name, "").split(",")
        place = symbols.index(variable) if variable in symbols else len(values)
        return values[place].strip() if place < len(values) else ""

    y = form[2] or form[3]
    scale = Scale(
        points=labels.get("npoints") or of(y, "vardim"),
        first_x=labels.get("firstx") or of("X", "first"),
        last_x=labels.get("lastx") or of("X", "last"),
        delta_x=labels.get("deltax", ""),
        first_y=labels.get("firsty", ""),
        x_factor=labels.get("xfactor") or of("X", "factor"),
        y_factor=labels.get("yfactor") or of(y, "factor"),
    )
    x_values, y_values = read_table(table.form, table.lines, scale, notes)
    date = labels.get("longdate") or labels.get("date", "")
    time = moment(date if ":" in date else f"{date} {labels.get('time', '')}", "%Y/%m/%d", "%y/%m/%d")
    unit = labels.get("xunits") or of("X", "units")
    quantity = labels.get("yunits") or of(y, "units")
    is_raman = "raman" in f"{unit} {labels.get('datatype', '')}".lower()
    return Spectrum(x_values, y_values, unit, quantity, labels.get("title", ""), time, is_raman)


def _blocks(lines: io.TextIOBase) -> Iterator[_Block]:
    """Each block, once the next one or its end is reached. Raises ValueError for a table without bounds."""
    block, label, held = _Block(), "", 0
    page: dict[str, str] | None = None  # labels of the page of an NTUPLES
    for line in chain(iter(partial(lines.readline, MAX_LINE), ""), ["##END="]):
        text = line.partition("$$")[0].strip().removeprefix("\xef\xbb\xbf")  # a byte order mark
        if text.startswith("##"):
            name, _, value = text[2:].partition("=")
            label, value = re.sub(r"[\s/_-]", "", name).lower(), value.strip()
            if label in ("title", "end"):
                yield block
                block, held, page = _Block(), 0, None
            elif label in ("page", "endntuples"):
                yield block
                block.tables, held, page = [], 0, {} if label == "page" else None
            if not value.isascii() and len(block.strange) < MAX_WORDS:
                block.strange += value.encode("latin-1") + b"\n"
            if label in _TABLES:
                block.tables.append(_Table(value.upper().replace(" ", ""), page or {}))
            elif label in _LABELS:
                (block.labels if page is None else page)[label] = value
        elif label in _TABLES:
            table = block.tables[-1]
            if not table.form and text.startswith("("):  # on a line of its own
                table.form = text.upper().replace(" ", "")
            else:
                table.lines.append(text)
            held += len(line)
            if held > MAX_TABLE or len(line) == MAX_LINE:
                raise ValueError(f"expected lines of 80 characters and {MAX_TABLE} a spectrum, got more")
