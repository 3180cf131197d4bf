"""Files of laboratory spectrometers, made byte by byte."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tamis.models.axis import Axis


def opus(
    values: np.ndarray,
    kind: int = 12,  # reflectance; 4: absorbance
    series: bool = False,
    first: float = 1.0,
    last: float = 2.5,
    unit: str = "MI",
    points: int | None = None,
    words: int | None = None,
    also: tuple[int, ...] = (),
    derivative: int = 0,
    sample: bytes = b"wheat 7",
) -> bytes:
    """A result, what it says of its axis, and the sample's name; before it, results of other kinds."""

    def parameters(**said: float | str | bytes) -> bytes:
        made = b""
        for name, value in said.items():
            content = struct.pack("<i", value) if isinstance(value, int) else b""
            content = struct.pack("<d", value) if isinstance(value, float) else content
            if isinstance(value, str | bytes):
                text = value if isinstance(value, bytes) else value.encode()
                content = text.ljust(len(text) // 4 * 4 + 4, b"\0")
            code = min((int, float, str, bytes).index(type(value)), 2)
            made += name.encode() + b"\0" + struct.pack("<hh", code, words or len(content) // 2) + content
        return made + b"END\0\0\0\0\0"

    def block(second: int, third: int, fourth: int, content: bytes) -> tuple[int, bytes]:
        code = 3 | second << 2 | third << 4 | fourth << 10 | (2 << 19 if series and fourth else 0)
        return code | (derivative << 17 if fourth == kind else 0), content

    blocks = [block(0, 40, 0, parameters(SNM=sample))]
    for place, one in enumerate((*also, kind)):
        shown = (values + 100 * (place < len(also))).astype("<f4")
        about = parameters(
            DPF=1, NPT=len(values) if points is None else points, FXV=first, LXV=last, CSF=2.0, DXU=unit,
            MXY=2.0 * float(shown.max()), MNY=2.0 * float(shown.min()), DAT="16/03/2023", TIM="12:27:26.808 (GMT-3.5)",
        )  # fmt: skip
        blocks += [block(3, 1, one, about), block(3, 0, one, shown.tobytes())]
    entries, body, start = b"", b"", 24 + 12 * 40
    for code, content in blocks:
        entries += struct.pack("<iii", code, len(content) // 4, start + len(body))
        body += content
    return b"\n\n\xfe\xfe" + struct.pack("<diii", 920622.0, 24, 40, len(blocks)) + entries.ljust(480, b"\0") + body


def spc(
    spectra: Any,
    flags: int = 0x04,
    version: int = 0x4B,
    points: int | None = None,
    count: int | None = None,
    types: tuple[int, int] = (3, 2),  # nm, absorbance
    labels: bytes = b"",
    exponent: int = 3,
) -> bytes:
    """32 bit integers, each spectrum with an exponent one higher; with flag 0x40 each is (x, y)."""
    points = len(spectra[0]) if points is None else points
    date = 2024 << 20 | 2 << 16 | 29 << 11 | 13 << 6 | 5
    head = struct.pack(
        "<BBBbIddIBBBBI", flags, version, 0, exponent, points, 1000.0, 1300.0, len(spectra) if count is None else count,
        *types, 0, 0, date,
    ).ljust(88, b"\0")  # fmt: skip
    head = (head + b"barley".ljust(130, b"\0") + labels).ljust(512, b"\0")
    for i, one in enumerate(spectra):
        x, y = one if flags & 0x40 else (None, one)
        own = exponent + i if flags & 0x04 else 0
        head += struct.pack("<BbHfffIIf4x", 0, own, i, 0, 0, 0, len(y) if x is not None else 0, 0, 0)
        head += b"" if x is None else np.asarray(x, "<f4").tobytes()
        head += np.round(np.asarray(y) * 2.0 ** (32 - (own or exponent))).astype("<i4").tobytes()
    return head


def jcamp(values: np.ndarray, axis: Axis, **more: str) -> str:
    """One block, ten values a line."""
    said = {
        "TITLE": "maize", "JCAMP-DX": "4.24", "DATA TYPE": "NIR SPECTRUM", "XUNITS": axis.unit, "YUNITS": "ABSORBANCE",
        "FIRSTX": f"{axis.values[0]:g}", "LASTX": f"{axis.values[-1]:g}", "NPOINTS": str(len(axis)), "XFACTOR": "1",
        "YFACTOR": "1e-9", "LONGDATE": "2024/02/29 13:05:07.25 +0130 $$ local", "XYDATA": "(X++(Y..Y))", **more,
    }  # fmt: skip
    lines = [f"##{name}= {value}" for name, value in said.items()]
    for at in range(0, len(values), 10):
        numbers = " ".join(f"{value * 1e9:.0f}" for value in values[at : at + 10])
        lines.append(f"{axis.values[at]:.6f} {numbers}")
    return "\n".join([*lines, "##END="]) + "\n"


AXIS = Axis(np.linspace(1000.0, 1300.0, 31), "nm")
VALUES = np.random.default_rng(0).uniform(0.1, 1.5, (4, 31))
