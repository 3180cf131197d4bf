"""White and dark references of a camera: refreshed while it runs, kept over restarts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tamis import BadMessage
from tamis.models.axis import Axis, Sensors
from tamis.streamer.files.instruments.envi import write_envi

from ..support.camera import NM, PIXELS, camera, references, shot


def test_references_are_refreshed_while_it_runs_and_their_change_is_reported(tmp_path: Path) -> None:
    white, dark = references()
    truth = np.random.default_rng(4).uniform(0.1, 0.9, (3 * PIXELS, 12))
    one = camera(tmp_path)
    assert one.find_objects(shot(truth)).frame.quantity == "counts", "as long as nothing is known"
    lines = np.vstack([white, white])
    assert one.update_reference(shot(np.tile(dark, (2, 1)), reference="dark")) == 0
    assert one.update_reference(shot(lines[:14], reference="white")) == 0
    assert one.update_reference(shot(lines[14:], x=14 % PIXELS, y=1, reference="white")) == pytest.approx(0, abs=1e-6)

    def counts(lamp: float, rise: float) -> np.ndarray:
        return truth * np.tile((white - dark) * lamp, (3, 1)) + np.tile(dark + rise, (3, 1))

    for lamp, rise in ((1.0, 0.0), (0.8, 0.0), (0.8, 40.0)):
        dark_change = one.update_reference(shot(dark + rise, reference="dark"))
        change = one.update_reference(shot((white - dark) * lamp + dark + rise, reference="white"))
        assert change == pytest.approx(lamp - 1, abs=1e-4)
        assert dark_change == pytest.approx(rise / np.median(white - dark), abs=0.01)
        seen = one.find_objects(shot(counts(lamp, rise)))
        assert seen.frame.quantity == "reflectance"
        np.testing.assert_allclose(seen.frame.spectra, truth, atol=1e-3)
    again = camera(tmp_path)
    np.testing.assert_allclose(again.find_objects(shot(counts(0.8, 40.0))).frame.spectra, truth, atol=1e-3)


def test_a_reference_in_pieces_counts_once_every_pixel_was_in_it() -> None:
    white, _ = references()
    one = camera()
    assert one.update_reference(shot(white[:5], reference="white")) is None
    one.find_objects(shot(white))
    assert one.update_reference(shot(white[5:], x=5, reference="white")) is None, (
        "the spectra in between ended the first piece"
    )
    assert one.find_objects(shot(white)).frame.quantity == "counts"
    assert one.update_reference(shot(white, reference="white")) == 0


def test_an_impossible_reference_leaves_the_one_before() -> None:
    white, dark = references()
    one = camera()
    one.update_reference(shot(dark, reference="dark"))
    one.update_reference(shot(white, reference="white"))
    with pytest.raises(BadMessage, match="expected light in the white reference"):
        one.update_reference(shot(dark, reference="white"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)
    wide = Axis(np.linspace(950, 1700, 13), "nm")
    with pytest.raises(BadMessage, match="as the white one has"):
        one.update_reference(shot(np.ones((PIXELS, 13)), reference="dark", axis=wide))
    one = camera()
    one.update_reference(shot(white, reference="white"))
    with pytest.raises(BadMessage, match="expected counts, as the camera has them, got reflectance"):
        one.update_reference(shot(white / white, reference="white", quantity="reflectance"))
    with pytest.raises(BadMessage, match="white reference: expected 12 bands, as the white one has, got 13"):
        one.update_reference(shot(np.ones((PIXELS, 13)), reference="white", axis=wide))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


@pytest.mark.parametrize(
    "arrays",
    [{"white": np.array(3.0)}, {"white": np.ones((PIXELS, 12, 2))}, {"white": np.ones((4, 12))}, {"dark": np.ones(9)}],
)
def test_kept_references_of_another_shape_are_ignored(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    white, _ = references()
    save_file(arrays, tmp_path / "kept.safetensors")
    one = camera(tmp_path)
    assert one.find_objects(shot(white)).frame.quantity == "counts"
    assert one.update_reference(shot(white, reference="white")) == 0


def test_a_kept_dark_reference_goes_with_the_white_one_of_the_settings(tmp_path: Path) -> None:
    white, dark = references()
    write_envi(tmp_path / "white.hdr", iter([white]), NM.values, "counts")
    os.utime(tmp_path / "white.hdr", (0, 0))
    camera(tmp_path).update_reference(shot(dark, reference="dark"))
    one = camera(tmp_path, white=str(tmp_path / "white.hdr"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)
    np.testing.assert_allclose(one.find_objects(shot(dark)).frame.spectra, 0, atol=1e-4)
    save_file({"white": np.ones((PIXELS, 13))}, tmp_path / "kept.safetensors")
    one = camera(tmp_path, white=str(tmp_path / "white.hdr"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


def test_change_is_measured_against_the_first_reference_even_after_restarts(tmp_path: Path) -> None:
    white, dark = references()
    camera(tmp_path).update_reference(shot(dark, reference="dark"))
    assert camera(tmp_path).update_reference(shot(white, reference="white")) == 0
    fading = [
        camera(tmp_path).update_reference(shot(dark + share * (white - dark), reference="white"))
        for share in (0.9, 0.7)
    ]
    assert fading == [pytest.approx(-0.1, abs=1e-3), pytest.approx(-0.3, abs=1e-3)]


def test_a_reference_that_cannot_be_saved_is_still_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    white, _ = references()
    monkeypatch.setattr("os.replace", lambda *_: (tmp_path / "nowhere").open())  # as good as a full disk
    one = camera(tmp_path)
    one.update_reference(shot(white, reference="white"))
    np.testing.assert_allclose(one.find_objects(shot(white)).frame.spectra, 1, atol=1e-4)


def test_pixels_of_a_model_without_the_spectrum_have_a_brightness() -> None:
    """Raw frames may have the axis of such a model; one once stopped the worker."""
    frame = shot(np.full((9, 12), 7.0), axis=Sensors({"visible": NM}), quantity="reflectance")
    brightness, blind = camera(belt=(0.0, 0.1)).references.brightness(frame, np.arange(9))
    assert brightness.tolist() == [7.0] * 9
    assert not blind.any()
