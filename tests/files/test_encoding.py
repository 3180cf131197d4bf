"""Words of a laboratory in the code pages that its programs write: read as they were written, or refused by name."""

import pytest

from tamis.streamer.files.encoding import decoded, detect

WORDS = {
    "windows-1252": [
        "Gerät",
        "Öl Probe 7",
        "Échantillon 3",
        "Größe",
        "Maß",
        "café",
        "maïs",
        "25 °C",
        "µm",
        "5 cm²",
        "blé d'été",
        "año",
    ],
    "windows-1250": ["próbka zboża", "żyto", "Łódź pszenica", "popiół"],
    "windows-1251": ["Пшеница", "пробка №5", "Ячмень", "проба", "вологість"],
    "koi8-r": ["Пшеница"],
    "shift_jis": ["小麦", "トウモロコシ", "試料", "サンプル 1"],
    "gb18030": ["小麦", "样品", "玉米水分", "样品1"],
    "big5": ["小麥"],
    "mac_roman": ["Gerät", "Größe"],
    "cp850": ["Gerät"],
    "utf-8": ["Gerät", "小麦"],
    "utf-8-sig": ["Gerät", "ascii"],
    "utf-16": ["Gerät"],
}


@pytest.mark.parametrize("name", WORDS)
def test_words_are_read_as_they_were_written(name: str) -> None:
    for word in WORDS[name]:
        text, note = decoded(f"sample;{word};1100\n".encode(name), None)
        assert text == f"sample;{word};1100\n"
        assert (note is None) == name.startswith("utf-8")
        if note:
            assert word.split()[0] in note or word.split()[-1] in note
            assert "--encoding decides" in note
        assert decoded(word.encode(name), None)[0] == word


def test_a_sample_may_end_within_a_character() -> None:
    assert detect("Gerät".encode()[:4]) == "utf-8"
    assert detect("小麦小麦".encode("shift_jis")[:-1]) == "shift_jis"
    assert detect(b"") == "utf-8"


def test_a_given_encoding_decides() -> None:
    assert decoded("kukuřice".encode("cp1250"), "cp1250") == ("kukuřice", None)
    assert decoded("\ufeffa".encode(), "utf-8") == ("a", None)


@pytest.mark.parametrize(
    ("data", "given", "message"),
    [
        (b"abc\xe4", "utf-8", "expected text in utf-8, got byte 0xe4 at offset 3; give --encoding"),
        (b"abc", "hex", "unknown encoding 'hex'"),
        (b"abc", "utf-99", "unknown encoding 'utf-99'"),
        (b"ab\0c", None, "expected text, got byte 0x00 at offset 2"),
        (b"\xff\xfea", None, "expected text in utf-16, got byte 0x61 at offset 2"),
        (bytes(range(128, 256)) * 2, None, "expected text, got byte 0x80 at offset 0"),
    ],
)
def test_what_is_no_text_is_refused_with_its_byte(data: bytes, given: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoded(data, given)
