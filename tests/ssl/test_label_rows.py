"""Which spectrum a label belongs to where ids repeat between spectrometers or days; and values taken out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.ssl.replay_buffer import Buffer
from tamis.ssl.replay_layout import AmbiguousSpectrum, Asked, UnknownOrigin, condition_of

GRID = Axis(np.linspace(1000, 1600, 50), "nm")
SIZE = 4_000_000
MONDAY = np.datetime64("2026-01-05T12:00:00", "us")
DAY = np.timedelta64(1, "D")


def add(
    buffer: Buffer, number: int, line: str, name: str = "5", instrument: str = "a", when: np.datetime64 = MONDAY
) -> int:
    """A spectrum whose values all are its number."""
    spectrum = np.full((1, len(GRID)), number, np.float32)
    return buffer.add(spectrum, GRID, [name], None, condition_of(line, instrument), np.array([when]))


def asked(line: str = "", instrument: str = "", time: np.datetime64 | None = None) -> Asked:
    return Asked(line, instrument, None if time is None else int(time.astype(np.int64)))


def joined(buffer: Buffer) -> dict[int, float]:
    """The number of each labeled spectrum -> its value."""
    labeled = buffer.labeled(["fat"])
    return dict(zip(labeled.spectra[:, 0].astype(int).tolist(), labeled.values[:, 0].tolist(), strict=True))


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with Buffer(tmp_path / "b", GRID, SIZE) as opened:
        yield opened


@pytest.mark.parametrize("label_first", [True, False])
def test_two_spectrometers_that_count_from_one_do_not_mix(label_first: bool, buffer: Buffer) -> None:
    for turn in ("labels", "spectra") if label_first else ("spectra", "labels"):
        if turn == "spectra":
            add(buffer, 1, "nir1")
            add(buffer, 2, "nir2")
            add(buffer, 3, "nir2", instrument="b")
        else:
            buffer.label("5", {"fat": 1.0}, MONDAY, asked=asked("nir1"))
            buffer.label("5", {"fat": 2.0}, MONDAY, asked=asked("nir2", "a"))
            buffer.label("5", {"fat": 3.0}, MONDAY, asked=asked("", "b"))
    assert joined(buffer) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert buffer.added == 3


def test_a_label_that_may_belong_to_two_spectra_is_refused_by_their_names(buffer: Buffer) -> None:
    add(buffer, 1, "nir1")
    assert buffer.label("5", {"fat": 1.0}, MONDAY).is_joined, "there is no other yet"
    add(buffer, 2, "nir2")
    for which in (asked(), asked(instrument="a"), asked(time=MONDAY)):
        with pytest.raises(
            AmbiguousSpectrum, match="'5' is the id of 2 spectra .*nir1/a on 2026-01-05; nir2/a on 2026-01-05"
        ):
            buffer.label("5", {"fat": 9.0}, MONDAY, asked=which)
    assert joined(buffer) == {1: 1.0}
    with pytest.raises(UnknownOrigin, match="nothing came from 'nir3' yet; '5' is of nir1/a, nir2/a"):
        buffer.label("5", {"fat": 9.0}, MONDAY, asked=asked("nir3"))
    assert not buffer.label("6", {"fat": 9.0}, MONDAY, asked=asked("nir3")).is_joined, "it waits for its line"


def test_a_label_without_a_line_that_came_first_is_not_guessed_where_ids_collide(tmp_path: Path) -> None:
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        buffer.label("6", {"fat": 6.0}, MONDAY)
        add(buffer, 6, "nir1", "6")
        assert joined(buffer) == {6: 6.0}
        add(buffer, 1, "nir1")
        add(buffer, 2, "nir2")
        buffer.label("7", {"fat": 7.0}, MONDAY)
        buffer.label("8", {"fat": 8.0}, MONDAY, asked=asked("nir2"))
    with Buffer(tmp_path / "b", GRID, SIZE) as buffer:
        for line, number in (("nir1", 70), ("nir2", 71)):
            add(buffer, number, line, "7")
            add(buffer, number + 10, line, "8")
        assert joined(buffer) == {6: 6.0, 81: 8.0}


@pytest.mark.parametrize(
    ("time", "number"),
    [
        (MONDAY, 1),
        (MONDAY + np.timedelta64(1, "h"), 1),
        (MONDAY - np.timedelta64(1, "h"), 1),  # of the same day: a clock that is a little off
        (MONDAY + DAY - np.timedelta64(1, "m"), 1),
        (MONDAY + DAY, 2),
        (MONDAY + 9 * DAY, 3),  # when it was analysed, perhaps
    ],
)
def test_the_time_of_a_label_decides_between_days(time: np.datetime64, number: int, buffer: Buffer) -> None:
    for day in range(3):
        assert add(buffer, 1 + day, "nir1", when=MONDAY + day * DAY) == 1
        assert add(buffer, 1 + day, "nir1", when=MONDAY + day * DAY) == 0
    with pytest.raises(AmbiguousSpectrum, match="3 spectra .*nir1/a on 2026-01-05; nir1/a on 2026-01-06; nir1/a on"):
        buffer.label("5", {"fat": 1.0}, MONDAY, asked=asked("nir1"))
    assert buffer.label("5", {"fat": 1.0}, MONDAY, asked=asked(time=time)).is_joined
    assert joined(buffer) == {number: 1.0}
    assert buffer.label("5", {"fat": 1.5}, MONDAY, asked=asked("nir1", "a", time)).is_joined
    assert joined(buffer) == {number: 1.5}


def test_a_value_of_an_earlier_day_waits_for_its_own_spectrum(buffer: Buffer) -> None:
    assert not buffer.label("5", {"fat": 1.0}, MONDAY, asked=asked("nir1", time=MONDAY)).is_joined
    add(buffer, 2, "nir1", when=MONDAY + DAY)
    assert joined(buffer) == {}
    add(buffer, 1, "nir1", when=MONDAY)
    assert joined(buffer) == {1: 1.0}


def test_a_label_that_carries_its_spectrum_is_its_own(buffer: Buffer) -> None:
    for number, line in ((1, "nir1"), (2, "nir2")):
        spectrum = np.full(len(GRID), number, np.float32)
        assert buffer.label("5", {"fat": float(number)}, MONDAY, spectrum, GRID, asked=asked(line, "a")).is_joined
        add(buffer, number, line)
    buffer.label("5", {"fat": 1.5}, MONDAY, asked=asked("nir1"))
    assert joined(buffer) == {1: 1.5, 2: 2.0}


def test_a_retracted_value_is_gone_and_the_others_stay(buffer: Buffer) -> None:
    for number in range(5):
        add(buffer, number, "nir1", f"s{number}")
        buffer.label(f"s{number}", {"fat": float(number), "water": 9.0}, MONDAY)
    before = buffer.joined
    gone = buffer.retract("s1")
    assert gone is not None
    assert (gone.spectrum_id, gone.condition, gone.values) == ("s1", "nir1/a", {"fat": 1.0, "water": 9.0})
    (gone_in_part,) = filter(None, [buffer.retract("s3", ["fat"])])
    assert gone_in_part.values == {"fat": 3.0}
    assert joined(buffer) == {0: 0.0, 2: 2.0, 4: 4.0}
    assert buffer.labeled(["water"]).spectra[:, 0].tolist() == [0, 2, 3, 4]
    assert buffer.joined > before, "there is something to learn anew"
    assert buffer.labeled(["fat"]).joined[-1] == buffer.joined
    assert buffer.retract("s1") is None
    assert buffer.retract("s3", ["fat"]) is None
    assert buffer.retract("never") is None
    add(buffer, 7, "nir1", "s7")
    buffer.label("s7", {"fat": 7.0}, MONDAY)
    assert joined(buffer) == {0: 0.0, 2: 2.0, 4: 4.0, 7: 7.0}, "slots are used again, and none twice"


def test_a_value_that_is_confirmed_has_to_be_the_one_that_was_given(buffer: Buffer) -> None:
    add(buffer, 1, "nir1")
    buffer.label("5", {"fat": 1.0}, MONDAY, positions={"labels:0": 1})
    with pytest.raises(ValueError, match="fat is 1 now, not 2; nothing is confirmed"):
        buffer.label("5", {"fat": 2.0}, MONDAY, positions={"labels:0": 2}, confirms=True)
    assert buffer.label("5", {"fat": 1.0}, MONDAY, positions={"labels:0": 3}, confirms=False).is_known
    assert np.isnan(buffer.labeled(["fat"]).previous).all(), "the same file sent twice confirms nothing"
    buffer.label("5", {"fat": 1.0}, MONDAY, positions={"labels:0": 4}, confirms=True)
    assert buffer.labeled(["fat"]).previous.tolist() == [[1.0]]


def test_what_a_version_has_learned_is_noted_once_and_a_repeat_is_asked_for_once(buffer: Buffer) -> None:
    for number in range(3):
        add(buffer, number, "nir1", f"s{number}")
        buffer.label(f"s{number}", {"fat": float(number)}, MONDAY)
    assert [row.spectrum_id for row in buffer.learn("v0002", 2, {("s0", "fat", 0.0)}, ["fat"])] == ["s1"]
    assert [row.spectrum_id for row in buffer.learn("v0003", 3, set(), ["fat"])] == ["s0", "s2"]
    assert buffer.learn("v0004", 3, set(), ["fat"]) == []
    asked_for = buffer.request("s1", "fat", 1.0)
    assert asked_for is not None
    assert (asked_for.condition, asked_for.time) == ("nir1/a", MONDAY)
    assert buffer.request("s1", "fat", 1.0) is None
    assert buffer.request("s1", "fat", 5.0) is None
    assert [row.spectrum_id for row in buffer.joined_since(1)] == ["s1", "s2"]
