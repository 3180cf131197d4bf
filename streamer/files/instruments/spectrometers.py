"""Files of laboratory and field spectrometers, by their suffix: one row of `FORMATS` each."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..columns import Content
from ..options import ReadOptions
from .asd import read_asd
from .jcamp import read_jcamp
from .opus import read_opus
from .spc import read_spc
from .spectrum_file import Reader, open_spectra

# Formats that no suitable library reads, and the way out of the program that writes them.
UNREAD = {
    ".sp": "PerkinElmer files are not supported: export them in Spectrum by File, Save As, JCAMP-DX (*.dx) or ASCII",
    ".spa": "Thermo OMNIC files are not supported: export them in OMNIC by File, Save As, JCAMP-DX (*.jdx) or CSV text",
    ".spg": "groups of Thermo OMNIC are not supported: ungroup them in OMNIC, then File, Save As, JCAMP-DX (*.jdx)",
    ".wdf": "Renishaw WiRE files are not supported: export them in WiRE by File, Save As, SPC (*.spc) or text (*.txt)",
}


def _opener(kind: str, read: Reader) -> Callable[[str, Any, ExitStack, ReadOptions], Content]:
    def open_file(path: str, stream: Any, stack: ExitStack, options: ReadOptions) -> Content:
        return open_spectra(kind, read, path, stream, options)

    return open_file


FORMATS = {
    ".spc": _opener("SPC", read_spc),
    ".opus": _opener("OPUS", read_opus),
    ".asd": _opener("ASD", read_asd),
    **dict.fromkeys((".jdx", ".dx", ".jcamp"), _opener("JCAMP-DX", read_jcamp)),
}
