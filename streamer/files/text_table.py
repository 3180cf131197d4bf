"""A table in a file of text: its lines, delimiter, header and decimal mark, found by evidence.

Read line by line, so that neither a bad cell nor a quote that is never closed costs more than its own row.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from ... import BadFile
from .columns import TEXT_COLUMNS, plain, shown
from .encoding import detect
from .kinds import decimal_mark, is_empty, number, numbers

MAX_LINE = 1 << 20  # characters: a file without line ends must not fill the memory
MAX_BLOCK = 1 << 25  # characters of lines held at a time: 256 spectra of as many bands as an axis may have
TOO_LONG = f"a line of {MAX_LINE} characters or more"  # stands for it, in one cell
HEAD = 256  # lines that are looked at to find the header and the form of the rows
SAMPLE = 64  # of them, whose cells are looked at
MAX_ABOVE = 100  # lines above the header
MAX_NOT_ASCII = 1 << 16  # bytes of lines that are not ASCII, to find their encoding
_COMMENT = re.compile(r'\s*"?\s*(?:#|%|//|!)')
_UNIT = re.compile(r"[(\[]?(?:%.*|\S*/[\S ]*|°\S*|pp[mb]|[mkµ]?g|m?m|m[lL]|n\.?u\.?|nm|cm-1|a\.?u\.?|-)[)\]]?", re.I)
_UNNAMED = re.compile(r"Unnamed: \d+(?:[._]\w+)*")  # pandas, of a column without a name
_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?\s*', re.I)


@dataclass(slots=True)
class Lines:
    """The lines of a file of text, and the first of them to look at.

    Attributes:
        head: the first lines that are neither empty nor comments, with their numbers.
        rest: the lines after them.
        delimiter: as a line 'sep=;' says it, or None.
        blanks: whether blanks separate the cells where no other mark does.
        notes: sentences about how the file was read.
    """

    path: str
    head: list[tuple[int, str]]
    rest: Iterator[tuple[int, str]]
    delimiter: str | None
    blanks: bool
    notes: list[str]

    def cells(self, line: str) -> list[str]:
        return split(line, self.delimiter or delimiter_of(line, self.blanks))


@dataclass(slots=True)
class TextTable:
    """A header and the rows below it. A column without a name is ''.

    Attributes:
        row: the header's line. names: of the columns. head: the lines below it that are known already.
    """

    lines: Lines
    row: int
    names: list[str]
    delimiter: str | None
    decimal: str = "."
    head: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def below(cls, lines: Lines, place: int) -> TextTable:
        """The table whose header is the line at that place of `lines.head`."""
        row, line = lines.head[place]
        delimiter = lines.delimiter or delimiter_of(line, lines.blanks)
        names = [_UNNAMED.sub("", name.strip()) for name in split(line, delimiter)]
        table = cls(lines, row, names, delimiter, head=lines.head[place + 1 :])
        if place:
            first, last = lines.head[0][0], lines.head[place - 1][0]
            lines.notes.append(
                f"the header is line {row}; above it lie lines {first} to {last}, which are not read: "
                f"{lines.head[0][1].strip()[:60]!r}"
            )
        table._complete_names([split(lines.head[at][1], delimiter) for at in (place - 1, place + 1)
                               if 0 <= at < len(lines.head)])  # fmt: skip
        names = table.names
        rows = [split(line, delimiter) for _, line in table.head[:SAMPLE]]
        usual = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
        extra = [cells[len(names) :] for cells in rows if len(cells) == usual > len(names)]
        if extra and any(cell.strip() for cells in extra for cell in cells):  # else delimiters at their ends
            filled = 1 + max(at for cells in extra for at, cell in enumerate(cells) if cell.strip())
            table.names = ["", *names] if filled == 1 else names
        if table.names[0] == "" and len(table.names) > 1:
            table._name_rows([cells[0].strip() for cells in map(table.cells, (line for _, line in table.head[:SAMPLE]))
                              if len(cells) == len(table.names)])  # fmt: skip
        texts = {at for at, name in enumerate(table.names) if plain(name) in TEXT_COLUMNS}  # '1.10' names a sample
        whole = [cells for cells in rows if len(cells) >= len(names)]
        figures = [cell for cells in whole for at, cell in enumerate(cells) if at not in texts]
        table.decimal = "." if delimiter == "," else decimal_mark(figures)
        if delimiter == ",":
            table.decimal = _decimal_in_quotes(lines.path, [cell for cell in figures if "," in cell])
        return table

    def _name_rows(self, first: list[str]) -> None:
        """A first column without a name holds the names of the rows, unless it counts them, as R and pandas do."""
        found = [cell for cell in first if cell]
        counts = found[:1] in (["0"], ["1"]) and found == [str(int(found[0]) + at) for at in range(len(found))]
        if found and not counts:
            self.names = ["row_name", *self.names[1:]]
            self.lines.notes.append(f"the first cell of each row is its name, as R writes it ({found[0]!r})")

    def _complete_names(self, beside: list[list[str]]) -> None:
        """A header of two lines: names that it lacks stand in the line above or below, which holds no numbers."""
        for cells in beside:
            if len(cells) != len(self.names) or any(map(is_number, cells)):
                continue
            lacking = [
                at for at, name in enumerate(self.names) if cells[at].strip() and (not name or are_units([name]))
            ]
            if lacking and all(cells[at].strip() for at, name in enumerate(self.names) if not name):
                self.names = [cells[at].strip() if at in lacking else name for at, name in enumerate(self.names)]
                self.lines.notes.append(f"the header has two lines: {shown([self.names[at] for at in lacking], 3)}")

    def cells(self, line: str) -> list[str]:
        """The cells of a row; without empty ones beyond the header's, with one that the header alone has."""
        cells, wide = split(line, self.delimiter), len(self.names)
        if len(cells) > wide and not any(cell.strip() for cell in cells[wide:]):
            return cells[:wide]
        return [*cells, ""] if len(cells) == wide - 1 > 0 and not self.names[-1] else cells

    def blocks(self, n: int) -> Iterator[list[tuple[int, str]]]:
        """The next n lines at a time that are not blank; fewer if they are so long that they would fill the memory."""
        rest = chain(self.head, self.lines.rest)
        while lines := block(rest, n):
            if kept := [(row, line) for row, line in lines if line.strip(f'{self.delimiter or ""}" \t\r\n')]:
                yield kept


def checked_encoding(path: str, open_stream: Callable[[], Any], given: str | None) -> tuple[str, str | None]:
    """The encoding of a file of text, which was read through for it, and a sentence if it was found by its bytes.

    Raises:
        BadFile: the given encoding is unknown or not the file's, or none is found; with line, column and byte.
    """
    with open_stream() as stream:
        begin = stream.read(4)
    marked = detect(begin.rstrip(b"\0") if begin[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else begin)
    name = given or (marked if marked in ("utf-16", "utf-32") else "utf-8-sig")
    wrong = _first_wrong(path, open_stream, name)
    if wrong is None:
        return name, None
    where = f"{path}: line {wrong[0]}, column {wrong[1]}: byte 0x{wrong[2]:02x} is no {name.removesuffix('-sig')}"
    if given or name != "utf-8-sig":
        raise BadFile(f"{where}: give its --encoding, such as windows-1252")
    sample = _not_ascii(open_stream)
    found = detect(sample)
    if found is None or _first_wrong(path, open_stream, found) is not None:
        raise BadFile(f"{where}, and no other encoding fits: give its --encoding, such as windows-1252")
    text = sample.decode(found, "ignore")  # a blank may be the only mark: '1\xa0100'
    word = next((one for one in re.findall(r"[^ ,;\t\r\n\"]+", text) if not one.isascii()), text.strip(" "))
    return found, f"read as {found} by its bytes (line {wrong[0]}: {word[:40]!r}); --encoding decides"


def _first_wrong(path: str, open_stream: Callable[[], Any], encoding: str) -> tuple[int, int, int] | None:
    """Line, column (in bytes) and value of the first byte that is not in the encoding."""
    try:
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError as error:
        raise BadFile(
            f"{path}: unknown encoding {encoding!r:.40}; known: utf-8, windows-1252, shift_jis, ..."
        ) from error
    row, line = 1, 0  # of the byte after those that were read; how many bytes of its line were
    with open_stream() as stream:
        while chunk := stream.read(1 << 20):
            held = decoder.getstate()[0]
            try:
                decoder.decode(chunk)
            except UnicodeError as error:
                start = getattr(error, "start", 0) - len(held)
                before = chunk[: max(start, 0)]
                column = len(before) - before.rfind(b"\n") if b"\n" in before else line + len(before) + 1
                return row + before.count(b"\n"), max(column + min(start, 0), 1), (held + chunk)[start + len(held)]
            row += chunk.count(b"\n")
            line = len(chunk) - 1 - chunk.rfind(b"\n") if b"\n" in chunk else line + len(chunk)
    held = decoder.getstate()[0]
    return (row, line - len(held) + 1, held[0]) if held else None


def _not_ascii(open_stream: Callable[[], Any]) -> bytes:
    """The words of a file that are not ASCII, from its beginning."""
    sample = bytearray()
    with open_stream() as stream:
        while len(sample) < MAX_NOT_ASCII and (chunk := stream.read(1 << 20)):
            sample += b" ".join(word for word in re.split(rb"[\s,;\"]+", chunk) if not word.isascii()) + b" "
    return bytes(sample[:MAX_NOT_ASCII])


def open_lines(path: str, stream: Any, encoding: str | None, *, blanks: bool = False) -> Lines:
    """The lines of a stream of bytes; `blanks`: whether they may separate cells."""
    text = io.TextIOWrapper(stream, encoding=encoding or "utf-8-sig")
    lines: Iterator[tuple[int, str]] = enumerate(_whole_lines(text), start=1)
    head, delimiter, comments, comment = [], None, 0, (0, "")
    for row, line in block(lines, HEAD):
        if row == 1 and (separator := _SEPARATOR.fullmatch(line)):
            delimiter = separator[1]
        elif not head and _COMMENT.match(line):
            comments, comment = comments + 1, (row, line)
        elif line.strip():
            head.append((row, line))
    if not head:
        raise BadFile(f"{path}: expected a table, got {'comments' if comments else 'empty lines'} only")
    found = Lines(path, head, lines, delimiter, blanks, [])
    if comments and _is_header(found, comment):
        head.insert(0, (comment[0], _COMMENT.sub("", comment[1])))
        comments -= 1
        found.notes.append(f"the header is the comment in line {comment[0]}")
    if comments:
        found.notes.append(f"{comments} lines of comments are not read")
    return found


def _is_header(lines: Lines, comment: tuple[int, str]) -> bool:
    """Whether a comment names the columns of the rows that begin below it, as NumPy writes them."""
    first = lines.cells(lines.head[0][1])
    return (
        comment[0] + 1 == lines.head[0][0]
        and len(first) == len(lines.cells(comment[1])) > 2
        and sum(map(is_number, first)) * 2 > len(first)
    )


def _whole_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Without byte order marks, which stand in the middle of joined files; a line that is too long is `TOO_LONG`."""
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            while (more := text.readline(MAX_LINE)) and not more.endswith("\n"):
                pass
            line = TOO_LONG
        yield line.lstrip("\ufeff") if line[0] == "\ufeff" else line


def header_by_shape(lines: Lines) -> int:
    """The place in `lines.head` of the header: names above a column of numbers, in as many cells as the rows have.

    Without such a column, the first line of texts with as many cells. A line without numbers is preferred: 'Scans;32'
    may stand above.
    """
    rows = [lines.cells(line) for _, line in lines.head]
    usual = usual_width(lines)
    fits = [place for place, cells in enumerate(rows[:MAX_ABOVE]) if len(cells) in (usual, usual - 1)]
    fits = [place for place in fits if any(map(is_text, rows[place])) and not are_units(rows[place])]
    fits.sort(key=lambda place: (len(rows[place]) < usual, sum(map(is_number, rows[place]))))
    return next((place for place in fits if _names_numbers(rows[place:], usual)), min(fits, default=0))


def are_units(cells: Sequence[str]) -> bool:
    """A row of units alone: '%', 'g/kg', '[mg]'."""
    return any(map(str.strip, cells)) and all(not cell.strip() or _UNIT.fullmatch(cell.strip()) for cell in cells)


def _names_numbers(rows: list[list[str]], usual: int) -> bool:
    """Whether a name in the first row stands above numbers alone; a row of units may come between."""
    names, below = rows[0], [cells for cells in rows[1:] if len(cells) in (usual, usual + 1)]
    below = below[1:] if below and are_units(below[0]) else below
    shift = usual - len(names)  # R does not name the column of the rows' names
    for at, name in enumerate(names):
        column = [cells[at + shift] for cells in below]
        if name.strip() and any(numbers(column, mark).share == 1.0 for mark in ".,"):
            return True
    return False


def usual_width(lines: Lines) -> int:
    """How many cells a row has: of all widths, the one that holds most cells of the head."""
    cells: Counter[int] = Counter()
    for _, line in lines.head:
        wide = len(lines.cells(line))
        cells[wide] += wide
    return cells.most_common(1)[0][0]


def is_text(cell: str) -> bool:
    return not is_empty(cell) and not is_number(cell)


def is_number(cell: str) -> bool:
    """With a decimal point or a decimal comma."""
    return not math.isnan(number_of(cell))


def number_of(cell: str) -> float:
    """With a decimal point or a decimal comma; NaN if it is none."""
    value = number(cell)
    return number(cell, ",") if math.isnan(value) else value


def delimiter_of(line: str, blanks: bool) -> str | None:
    """None: blanks."""
    bare = re.sub(r'"[^"]*"', "", line)
    if blanks and "," in bare and re.fullmatch(r"\s*[-+\d.,eE]+\s+[-+\d.,eE\s]+", bare) and "\t" not in bare:
        return None  # '1100,5 0,123': decimal commas
    found = next((mark for mark in "\t;|" if mark in bare), ",")
    if bare.count(",") > 3 * bare.count(found) + 3:  # '1100,1102,1104,fat; total': not decimal commas
        found = ","
    return None if blanks and found == "," and "," not in bare else found


def split(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line; none if a quote in it is never closed."""
    line = line.rstrip("\r\n")
    if delimiter is None:
        return line.split()
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return []


def block(lines: Iterator[tuple[int, str]], n: int) -> list[tuple[int, str]]:
    """The next n lines; fewer if they are so long that they would fill the memory."""
    found, held = [], 0
    for row, line in islice(lines, n):
        found.append((row, line))
        held += len(line)
        if held > MAX_BLOCK:
            break
    return found


def _decimal_in_quotes(path: str, cells: Sequence[str]) -> str:
    """What the comma means in the quoted numbers of a file whose delimiter is the comma."""
    figures = [cell.strip() for cell in cells if re.fullmatch(r"\s*[-+]?(?:\d*,\d+|\d{1,3}(?:,\d{3})+\.?\d*)\s*", cell)]
    grouped = [re.fullmatch(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", cell) is not None for cell in figures]
    if not figures or (all(grouped) and any("." in cell for cell in figures)):
        return "."
    if all(grouped):
        raise BadFile(
            f"{path}: {figures[0]!r} may be {figures[0].replace(',', '')} or {figures[0].replace(',', '.', 1)}: "
            "write numbers without a mark for thousands"
        )
    return ","
