"""The tables of JCAMP-DX: numbers as text, plain (AFFN) or packed (PAC, SQZ, DIF, with DUP).

Sources: R. S. McDonald, P. A. Wilks, JCAMP-DX: a standard form for exchange of infrared spectra in computer readable
form, Appl. Spectrosc. 42 (1988) 151 (version 4.24); P. Lampen and others, JCAMP-DX 5.01, Pure Appl. Chem. 71 (1999)
1549.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from ....models.axis import MAX_BANDS

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER}(?:[Ee][+-]\d{{1,3}}(?!\d))?)|(?P<packed>[@-IJ-Ra-ij-r%])(?P<digits>\d*(?:\.\d*)?)"
    r"|(?P<dup>[S-Zs])(?P<more>\d*)|(?P<missing>\?)|(?P<blank>[\s,;]+)"
)
_PLAIN = re.compile(rf"(?:{_NUMBER}(?:[Ee][+-]?\d{{1,3}})?|\?)")  # AFFN between blanks, where E5 is an exponent
_FIRST_DIGIT = {
    **{one: str(digit) for digit, one in enumerate("@ABCDEFGHI")},
    **{one: f"-{digit}" for digit, one in enumerate("abcdefghi", 1)},
    **{one: str(digit) for digit, one in enumerate("%JKLMNOPQR")},
    **{one: f"-{digit}" for digit, one in enumerate("jklmnopqr", 1)},
}
_TIMES = {one: str(digit) for digit, one in enumerate("STUVWXYZs", 1)}


@dataclass(frozen=True, slots=True)
class Scale:
    """What the labels of a table say of it; texts as they stand in the file, '' if they do not.

    first_x, last_x and first_y are in the spectrum's units, which are those of the table times the factors.
    """

    points: str
    first_x: str
    last_x: str
    delta_x: str
    first_y: str
    x_factor: str
    y_factor: str


def read_table(form: str, lines: list[str], scale: Scale, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """x and y (bands,) of a table of the form '(X++(Y..Y))' or '(XY..XY)', NaN where an ordinate is missing.

    What some programs write wrong without harm is noted.

    Raises:
        ValueError: it cannot be read, or contradicts its labels by more than half a step and what rounding explains.
    """
    points = None
    if scale.points or form.startswith("(X++"):
        found = re.fullmatch(r"([0-9]{1,9})(\.0*)?", scale.points)
        if found is None or not 2 <= int(found[1]) <= MAX_BANDS:
            raise ValueError(f"expected NPOINTS of 2 to {MAX_BANDS}, got {scale.points!r:.40}")
        points = int(found[1])
    y_factor = _given("YFACTOR", scale.y_factor or "1")
    if points is not None and form.startswith("(X++"):
        x, y = _evenly_spaced(lines, scale, points, notes)
    else:
        x, y = _pairs(lines, scale, points)
    y = y * y_factor
    _check_first_y(scale.first_y.replace(" ", ""), y, y_factor, notes)
    return x, y


def _check_first_y(text: str, y: np.ndarray, y_factor: float, notes: list[str]) -> None:
    """Real files have a wrong FIRSTY beside right values. But one far from all of them means a wrong scale."""
    if not text or text == "?":
        return
    first = _given("FIRSTY", text)
    near = abs(y_factor) + _last_digit(text) + 1e-6 * abs(first)
    if not (abs(y[0] - first) > near and abs(y[0] / y_factor - first) > near):  # some programs leave the factor out
        return
    low, high = np.nanmin(y), np.nanmax(y)
    if not 2 * low - high <= first <= 2 * high - low:
        raise ValueError(f"expected a first value of {first:g}, as FIRSTY says; got {y[0]:g}")
    _note(notes, "FIRSTY", f" is {first:g}, but the table begins with {y[0]:g}: the table was read")


def _note(notes: list[str], about: str, text: str) -> None:
    """Once a file, which may hold thousands of tables."""
    if not any(note.startswith(about) for note in notes):
        notes.append(about + text)


def _evenly_spaced(lines: list[str], scale: Scale, points: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    first, last = _given("FIRSTX", scale.first_x), _given("LASTX", scale.last_x)
    factor = _given("XFACTOR", scale.x_factor or "1")
    step = (last - first) / (points - 1)
    if not math.isfinite(step) or step == 0:
        raise ValueError(f"expected a range of x, got FIRSTX {scale.first_x} and LASTX {scale.last_x}")
    rounding = max(_last_digit(scale.first_x), _last_digit(scale.last_x))
    if scale.delta_x:
        delta = _given("DELTAX", scale.delta_x)
        near = abs(step) / 2 + rounding + _last_digit(scale.delta_x) * (points - 1)
        if abs(abs(delta) - abs(step)) * (points - 1) > near:
            raise ValueError(
                f"expected DELTAX of {step:g}, by FIRSTX {first:g}, LASTX {last:g} and NPOINTS {points}; got {delta:g}"
            )
    values: list[float] = []
    ends_in_step = False
    shift: int | None = None  # some programs count the points of the first line one short, in all lines after it
    starts: list[
        tuple[int, float, float]
    ] = []  # of the first line and the last: its place, x, and what x is rounded by
    for line in filter(None, lines):
        x_text, ordinates, line_ends_in_step = _unpacked(line)
        x = float(x_text) * factor
        low = high = at = len(values)
        if at == points and len(ordinates) == 1 and ordinates[0] in (values[-1], 0.0):  # ends the table
            low, ordinates = at - 1, []
        elif not ordinates:  # a lone x ends some tables
            low = max(at - 1, 0)
        elif ends_in_step:  # a line begins with the last value of the one before, so that none is lost
            if not math.isclose(ordinates[0], values[-1], rel_tol=1e-9, abs_tol=1e-6):
                raise ValueError(
                    f"expected each line to begin with the last value of the one before, {values[-1]:g}; got "
                    f"{ordinates[0]:g} at x {x_text}"
                )
            low, ordinates = at - 1, ordinates[1:]
        digit = max(rounding, _last_digit(x_text, whole=1.0) * abs(factor))
        near = abs(step) / 2 + digit
        place = (x - first) / step
        if starts and shift is None:
            shift = next((by for by in (-1, 1) if abs(place - by - min(max(place - by, low), high)) < 0.25), 0)
            shift = 0 if abs(place - min(max(place, low), high)) * abs(step) <= near else shift
        place -= shift or 0
        if abs(place - min(max(place, low), high)) * abs(step) > near:
            raise ValueError(
                f"expected a line at x {first + step * at:g} after {at} points, by FIRSTX {first:g}, LASTX {last:g} "
                f"and NPOINTS {points}; got one at {x:g}"
            )
        starts[1:] = [(low, first + step * place, digit)]
        values += ordinates
        if len(values) > points:
            raise ValueError(f"expected {points} points, as NPOINTS says; got more")
        ends_in_step = line_ends_in_step
    if len(values) != points:
        raise ValueError(f"expected {points} points, as NPOINTS says; got {len(values)}")
    if len(starts) == 2 and starts[1][0]:
        (_, x, _), (at, end, digit) = starts
        more = (points - 1 - at) / at  # the lines' own step, as far as the last point
        if abs(end + (end - x) * more - last) > abs(step) / 2 + digit * (1 + 2 * more):
            raise ValueError(
                f"expected lines that lead to x {last:g}, as LASTX says; theirs lead to {end + (end - x) * more:g}"
            )
    if shift:
        said = f" name an x one point off; FIRSTX {first:g} and LASTX {last:g} were taken"
        _note(notes, "the lines of the table", said)
    return np.linspace(first, last, points), np.array(values)


def _unpacked(line: str) -> tuple[str, list[float], bool]:
    """A line's x, its ordinates, and whether the last of them came as a step (DIF)."""
    plain = line.replace(",", " ").replace(";", " ").split()
    if len(plain) > 1 and all(map(_PLAIN.fullmatch, plain)):
        return plain[0], [math.nan if one == "?" else float(one) for one in plain[1:]], False
    x_text, values = "", list[float]()
    step: float | None = None  # of the last ordinate, if it came as one
    at = 0
    while at < len(line):
        token = _TOKEN.match(line, at)
        if token is None:
            raise ValueError(f"expected numbers, got {line[at : at + 20]!r} in the line {line[:40]!r}")
        at = token.end()
        if token["blank"]:
            continue
        if not x_text:
            if not token["number"]:
                raise ValueError(f"expected each line to begin with x, got {line[:40]!r}")
            x_text = token["number"]
        elif token["number"]:
            values.append(float(token["number"]))
            step = None
        elif token["missing"]:
            values.append(math.nan)
            step = None
        elif token["dup"]:
            times = int(_TIMES[token["dup"]] + token["more"][:9])  # in all, with the one before
            if not values or times < 1:
                raise ValueError(f"expected a value to repeat, got {token[0]!r} in the line {line[:40]!r}")
            if len(values) + times > MAX_BANDS + 1:
                raise ValueError(f"expected at most {MAX_BANDS} points, got {token[0]!r:.20}")
            for _ in range(times - 1):
                values.append(values[-1] + (step or 0.0))
        else:
            number = float(_FIRST_DIGIT[token["packed"]] + token["digits"])
            step = number if token["packed"] in "%JKLMNOPQRjklmnopqr" else None
            if step is not None and (not values or math.isnan(values[-1])):
                raise ValueError(f"expected a value before the step {token[0]!r:.20} in the line {line[:40]!r}")
            values.append(number if step is None else values[-1] + step)
    return x_text, values, step is not None


def _pairs(lines: list[str], scale: Scale, points: int | None) -> tuple[np.ndarray, np.ndarray]:
    numbers: list[float] = []
    for line in lines:
        for text in re.split(r"[\s,;]+", line):
            if text and not _PLAIN.fullmatch(text):
                raise ValueError(f"expected pairs of x and y, got {text!r:.40}")
            if text:
                numbers.append(math.nan if text == "?" else float(text))
        if len(numbers) > 2 * MAX_BANDS:
            raise ValueError(f"expected at most {MAX_BANDS} points, got more")
    if len(numbers) % 2:
        raise ValueError(f"expected pairs of x and y, got {len(numbers)} numbers")
    x, y = np.array(numbers[::2]) * _given("XFACTOR", scale.x_factor or "1"), np.array(numbers[1::2])
    if points is not None and len(x) != points:
        raise ValueError(f"expected {points} points, as NPOINTS says; got {len(x)}")
    if len(x) < 2:
        raise ValueError(f"expected 2 to {MAX_BANDS} points, got {len(x)}")
    for label, text, got, step in (
        ("FIRSTX", scale.first_x, x[0], x[1] - x[0]),
        ("LASTX", scale.last_x, x[-1], x[-1] - x[-2]),
    ):
        if text and abs(_given(label, text) - got) > abs(step) / 2 + _last_digit(text):
            raise ValueError(f"expected an x of {text:.40}, as {label} says; got {got:g}")
    return x, y


def _given(label: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (value == 0 and label.endswith("FACTOR")):
        raise ValueError(f"expected a number for {label}, got {text!r:.40}")
    return value


def _last_digit(text: str, whole: float = 0.0) -> float:
    """What one more in the last digit of a number means, since programs round or cut there: 0.01 for '2.50'.

    `whole` is what a whole number was rounded by: nothing for a label, 1 for the x of a line.
    """
    mantissa, _, exponent = text.strip().lower().partition("e")
    digits = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - digits) if digits or exponent else whole
