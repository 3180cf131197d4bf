"""The encoding of a text in a file: UTF-8 where it is that, else the code page in which its words look like words.

A laboratory's file holds a few words among many numbers: too little for detectors that count letters of a language
(`charset-normalizer` takes 'Öl Probe 7' for Big5). So each candidate is judged by marks that a wrong code page leaves:
symbols inside of words, capitals after small letters, mixed scripts, rare ideographs.
"""

import codecs
import re

MAX_JUDGED = 1 << 14  # bytes of the words that hold other than ASCII
_BINARY = re.compile(rb"[\0-\x08\x0e-\x19\x1c-\x1f]")
MAX_STRANGE = 1.2  # marks a byte: above this no candidate is a text
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Of equals the first wins.
_CODE_PAGES = ("windows-1252", "windows-1250", "windows-1251", "koi8-r")
_CANDIDATES = (*_CODE_PAGES, "shift_jis", "gb18030", "big5", "mac_roman", "cp850")
# Where the two bytes of common characters lie: level 1 of JIS X 0208 with its kana and marks, of GB 2312, of Big5.
_DOUBLE_BYTE = {
    "shift_jis": re.compile(rb"[\x81-\x83\x88-\x97][\x40-\xfc]"),
    "gb18030": re.compile(rb"[\xa1\xa3\xb0-\xd7][\xa1-\xfe]"),
    "big5": re.compile(rb"[\xa1\xa4-\xc6][\x40-\x7e\xa1-\xfe]"),
}
_WEST, _EAST = "äöüßéèêëàâçîïôûùœñáíóúæøåãõìòý", "šžčřěťďňůľĺŕłżźśćęąńőűţşăâ"
_USUAL_LETTERS = {*_WEST, *_EAST, *_WEST.upper(), *_EAST.upper(), "µ", "º", "ª"}
_USUAL_MARKS = set("°²³±×–—’‘“”„«»…€§№\xa0½¼¾·")


def detect(sample: bytes, is_whole: bool = False) -> str | None:
    """The name of a sample's encoding, as Python's codecs know it; None if it is no text.

    A sample may end within a character; a whole text does not.
    """
    for mark, name in _BOMS.items():
        if sample.startswith(mark):
            return name
    if _BINARY.search(sample):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, is_whole)
        return "utf-8"
    except UnicodeDecodeError:
        pass
    words = b" ".join(word for word in re.split(rb"[\s,;\"]+", sample) if not word.isascii())[:MAX_JUDGED]
    size = sum(byte > 127 for byte in words)
    is_whole = is_whole and len(words) < MAX_JUDGED
    scores = {name: _strangeness(words, name, is_whole) / size for name in _CANDIDATES}
    best = min(scores, key=lambda name: scores[name])
    return best if scores[best] <= MAX_STRANGE else None


def decoded(data: bytes, given: str | None) -> tuple[str, str | None]:
    """The text, without a byte order mark, and a sentence about its encoding if that was found by its bytes.

    Raises:
        ValueError: the given encoding is unknown, or the text is not in it, or in none that is known.
    """
    name = given or detect(data, is_whole=True)
    if name is None:
        found = _BINARY.search(data) or re.search(rb"[\x80-\xff]", data)
        at = found.start() if found else 0
        raise ValueError(f"expected text, got byte 0x{data[at]:02x} at offset {at}; if it is text, give --encoding")
    try:
        text = data.decode(name)
    except LookupError as error:
        raise ValueError(f"unknown encoding {name!r:.40}; known: utf-8, windows-1252, shift_jis and others") from error
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        got = f"byte 0x{data[start]:02x} at offset {start}" if start < len(data) else "another"
        raise ValueError(f"expected text in {name}, got {got}; give --encoding, such as windows-1252") from error
    text = text.removeprefix("\ufeff")
    if given or name in ("utf-8", "utf-8-sig"):
        return text, None
    word = next((one[0] for one in re.finditer(r"[^\s,;=\"]+", text) if not one[0].isascii()), text)
    return text, f"read as {name} by its bytes ({word[:40]!r}); --encoding decides"


def _strangeness(words: bytes, name: str, is_whole: bool) -> float:
    """Marks of a wrong code page among the words; infinite where they cannot be in it."""
    try:
        text = codecs.getincrementaldecoder(name)().decode(words, is_whole)
    except UnicodeDecodeError:
        return float("inf")
    return _strange_pairs(words, _DOUBLE_BYTE[name]) if name in _DOUBLE_BYTE else _strange_letters(text)


def _strange_letters(text: str) -> float:
    strange = 0.0
    for match in re.finditer(r"[^\x00-\x7f]", text):
        at, one = match.start(), match[0]
        before, after = text[at - 1 : at] or " ", text[at + 1 : at + 2] or " "
        if one in _USUAL_MARKS:
            strange += 2 * (before.isalpha() and after.isalpha() and one not in "’·")
            strange += one in "…€§¼½¾" and after.isalpha()
            strange += one in "²³" and at > 2 and text[at - 3 : at].isalpha()  # 'cm²', not 'popió³'
        elif not one.isalpha():
            strange += 3 if not one.isprintable() else 2 if before.isalpha() or after.isalpha() else 1
        else:
            strange += 2 * (before.islower() and one.isupper())
            if _is_cyrillic(one):
                strange += 2 * any(c.isalpha() and not _is_cyrillic(c) for c in (before, after))
                strange += 0.5 * (one.lower() not in "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ")
            else:
                strange += one not in _USUAL_LETTERS
    for run in re.findall(r"[^\x00-\x7f]{4,}", text):  # accents in a row are the letters of another alphabet
        strange += 1.5 * len(run) * (not _is_cyrillic(run[0]))
    return strange


def _strange_pairs(words: bytes, usual: re.Pattern[bytes]) -> float:
    strange = 0.0
    for run in re.findall(rb"(?:[\x80-\xff][\x40-\xff]?)+", words):
        pairs = [run[at : at + 2] for at in range(0, len(run) - 1, 2)] or [run]
        lonely = 0.45 * (len(pairs) == 1)  # 'µm', not a word
        strange += sum(len(pair) * (lonely + (not usual.fullmatch(pair))) for pair in pairs)
    return strange


def _is_cyrillic(one: str) -> bool:
    return "\u0400" <= one <= "\u04ff"
