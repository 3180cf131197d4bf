"""A sheet of an .xlsx file, as laboratories export values, as the lines of a table of text."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from contextlib import ExitStack
from datetime import date, datetime, time
from itertools import zip_longest
from typing import Any

from ... import BadFile
from .text_table import Lines, open_lines

MAX_UNPACKED = 1 << 30  # bytes of all parts of the file
_ERRORS = ("#N/A", "#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!")


def open_sheet(path: str, stream: Any, stack: ExitStack) -> Lines:
    """The lines of the only sheet with cells, delimited by tabs; line 7 is row 7.

    Raises BadFile: several sheets have cells; a cell holds an error, or a formula that was never calculated.
    """
    from openpyxl import load_workbook

    with zipfile.ZipFile(stream) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > MAX_UNPACKED:
        raise BadFile(f"{path}: expected at most {MAX_UNPACKED} bytes once unpacked, got more")
    try:
        values, formulas = (load_workbook(stream, read_only=True, data_only=is_value) for is_value in (True, False))
        width, name = _filled(path, formulas)
        text = stack.enter_context(tempfile.TemporaryFile("w+b", prefix="tamis-"))  # noqa: SIM115 (the stack closes it)
        writer = csv.writer(io.TextIOWrapper(text, "utf-8", newline="", write_through=True), "excel-tab")
        percent: str | None = None
        for made in zip_longest(values[name].rows, formulas[name].rows):
            cells: list[str] = []
            for cell, formula in zip(*(list(part or ())[:width] for part in made), strict=False):
                if cell.value is None and isinstance(formula.value, str) and formula.value.startswith("="):
                    where = (
                        f"{path}: cell {formula.coordinate} holds the formula {formula.value[:40]} without its value"
                    )
                    raise BadFile(f"{where}: open the file in a spreadsheet program and save it")
                if cell.value in _ERRORS:
                    raise BadFile(f"{path}: cell {cell.coordinate} holds the error {cell.value}")
                value = cell.value
                if isinstance(value, int | float) and "%" in (cell.number_format or ""):
                    value, percent = value * 100, percent or cell.coordinate
                cells.append(_text(value))
            writer.writerow(cells + [""] * (width - len(cells)) if any(cells) else [])
    except (KeyError, AttributeError, TypeError, SyntaxError) as error:  # a zip of another kind, or broken XML
        raise BadFile(f"{path}: expected an .xlsx file: {type(error).__name__}: {error}") from error
    text.seek(0)
    lines = open_lines(path, text, "utf-8")
    lines.delimiter = "\t"
    if percent is not None:
        lines.notes.append(f"cells such as {percent} are shown in percent: 12 % is read as 12, not as 0.12")
    return lines


def _filled(path: str, workbook: Any) -> tuple[int, str]:
    """Columns up to the last one with a cell, and the name of the only sheet that has any."""
    widths = {
        sheet.title: max(
            (max((at for at, cell in enumerate(row, 1) if cell is not None), default=0) for row in _rows(sheet)),
            default=0,
        )
        for sheet in workbook.worksheets
    }
    filled = [name for name, width in widths.items() if width]
    if len(filled) != 1:
        got = ", ".join(map(repr, filled)) or "none"
        raise BadFile(
            f"{path}: expected one sheet with cells, got {got}: save the one that is meant as a file of its own"
        )
    return widths[filled[0]], filled[0]


def _rows(sheet: Any) -> Any:
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    return sheet.iter_rows(values_only=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return repr(round(value, 12)).removesuffix(".0")
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, date | time):
        return value.isoformat()
    return " ".join(str(value).split())
