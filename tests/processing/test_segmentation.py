"""Connected pixels are objects, wherever messages are cut."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from tamis.streamer.processing.segmentation import MAX_GAP, Segmenter

from ..support.camera import labelled


def followed(image: np.ndarray, cuts: list[int]) -> tuple[np.ndarray, dict[int, int], list[set[int]]]:
    """Codes of an image's pixels, the codes they were joined to, and the codes that ended with each message."""
    pixels = image.shape[1]
    y, x = np.divmod(np.arange(image.size), pixels)
    segmenter = Segmenter(pixels, 100_000)
    codes, joined, ended = [], {}, []
    for a, b in zip([0, *cuts], [*cuts, image.size], strict=True):
        if a == b:
            continue
        found, merged, gone = segmenter.take(x[a:b], y[a:b], image.ravel()[a:b])
        codes.append(found)
        joined |= merged
        ended.append(gone)
    return np.concatenate(codes), joined, ended


@pytest.mark.parametrize("seed", range(30))
def test_objects_are_those_of_the_whole_image_wherever_messages_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.asarray(ndimage.binary_dilation(rng.random((60, 17)) < rng.uniform(0.01, 0.12), iterations=1), bool)
    cuts = sorted(rng.integers(0, image.size, rng.integers(0, 25)).tolist())
    if seed % 2:
        cuts = [cut // 17 * 17 for cut in cuts]  # whole lines
    codes, joined, ended = followed(image, cuts)

    def last(code: int) -> int:
        while code in joined:
            code = joined[code]
        return code

    ours = np.array([last(code) for code in codes.tolist()])
    labels, count = labelled(image)
    pairs = set(zip(labels.ravel()[image.ravel()].tolist(), ours[image.ravel()].tolist(), strict=True))
    assert len(pairs) == count == len({b for _, b in pairs}), "one object here is one there"
    assert (ours[~image.ravel()] == -1).all()
    firsts = {int(np.flatnonzero(labels.ravel() == label)[0]) for label in range(1, count + 1)}
    assert {b for _, b in pairs} == firsts, "called after its first pixel"
    every = [code for gone in ended for code in gone]
    assert len(every) == len(set(every)), "nothing ends twice"
    rows = {label: int(np.flatnonzero((labels == label).any(axis=1)).max()) for label in range(1, count + 1)}
    by_name = {b: a for a, b in pairs}
    assert all(last(code) == code for code in every)
    assert {code for code in by_name if rows[by_name[code]] < 58} <= set(every), "objects out of view have ended"
    assert not {code for code in by_name if rows[by_name[code]] == 59} & set(every), "and objects in view have not"


def test_an_object_has_no_pixels_after_its_end() -> None:
    rng = np.random.default_rng(1)
    image = np.asarray(ndimage.binary_dilation(rng.random((200, 17)) < 0.03, iterations=2), bool)
    segmenter, over = Segmenter(17, 100_000), set()
    for first in range(0, 200, 4):
        y, x = np.divmod(np.arange(4 * 17), 17)
        codes, merged, ended = segmenter.take(x, y + first, image[first : first + 4].ravel())
        assert not over & set(codes.tolist())
        assert not over & set(merged.values())
        over |= ended


def test_an_object_without_end_is_cut_and_goes_on() -> None:
    segmenter = Segmenter(5, 10)
    y, x = np.divmod(np.arange(20), 5)
    codes, ended = [], set()
    for first in range(0, 400, 4):
        found, merged, gone = segmenter.take(x, y + first, x == 2)
        assert not merged
        codes += found[found >= 0].tolist()
        ended |= gone
    lengths = np.unique(codes, return_counts=True)[1]
    assert lengths.max() <= 16
    assert len(lengths) >= 400 / 16
    assert len(ended) >= len(lengths) - 2


def test_many_objects_without_end_are_cut_in_time() -> None:
    segmenter = Segmenter(65_536, 2)
    x = np.arange(65_536)
    start = time.monotonic()
    for y in range(8):
        codes, _, _ = segmenter.take(x, np.full(len(x), 2**45 + y), x % 2 == 0)
        assert len(np.unique(codes)) == 32_769
    assert time.monotonic() - start < 10, "0.1 s a message, not a loop over the pixels for each object"


def test_missing_lines_separate_objects_and_a_camera_may_restart() -> None:
    segmenter = Segmenter(5, 100)
    y, x = np.divmod(np.arange(10), 5)
    (first,) = set(segmenter.take(x, y, x == 2)[0].tolist()) - {-1}
    again, _, ended = segmenter.take(x, y + 2 + MAX_GAP, x == 2)
    assert ended == {first}, "across a gap nothing is known"
    (second,) = set(again.tolist()) - {-1}
    third, _, ended = segmenter.take(x, y + 1_000_000, x == 2)
    assert ended == {second}
    back, _, ended = segmenter.take(x, y, x == 3)
    assert ended == set(third.tolist()) - {-1}
    assert set(back.tolist()) == {-1, 3}
