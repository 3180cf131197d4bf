"""The cameras of all lines."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ... import BadMessage
from ..drift.reference_file import reference_path
from ..messages.frame import Frame
from ..messages.screening import BadRow, screen
from ..settings.tables import Camera as Table
from ..settings.tables import Line
from .camera import Camera, ScreenedFrame
from .segmentation import Segmenter

MAX_CAMERAS = 64  # lines x instruments


class Cameras:
    """Those of all lines that have one; `folder` keeps refreshed references over restarts, None does not."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._cameras: dict[tuple[str, str], Camera] = {}

    def check(self, lines: Mapping[str, Line]) -> None:
        """Raises BadFile where a reference of the settings cannot be read, or is of another camera."""
        for line in lines.values():
            if line.camera.pixels:
                Camera(line.camera)
                pixel = np.zeros(1, int)
                Segmenter(1, 2).take(pixel, pixel, pixel == 0)  # imports scipy now: the first objects need not wait

    def take(
        self, frame: Frame, line: Line | None, bad: Sequence[BadRow] = (), first: Iterable[int] = (0,)
    ) -> ScreenedFrame:
        """The message with its camera's references applied and its objects found; without a camera only screened.

        Raises:
            BadMessage: see `Camera`; or a reference for a line without a camera.
        """
        has_camera, saturation = line is not None and line.camera.pixels > 0, line and line.saturation
        if line is not None and has_camera and len(frame) and not frame.reference:
            return self._camera(frame, line.camera).find_objects(frame, bad, saturation, first)
        frame, bad = screen(frame, saturation, list(bad))
        if not frame.reference or not len(frame):
            return ScreenedFrame(frame, bad)
        if line is None or not has_camera:
            raise BadMessage(
                f"a {frame.reference} reference, but line {frame.line!r} has no camera in the settings", "reference"
            )
        return ScreenedFrame(frame[:0], bad, change=self._camera(frame, line.camera).update_reference(frame))

    def _camera(self, frame: Frame, table: Table) -> Camera:
        key = (frame.line, frame.instrument)
        camera = self._cameras.pop(key, None)  # and put back as the newest
        if camera is None:
            camera = Camera(table, self.folder and reference_path(self.folder, "\0".join(key)))
        camera.references.refresh()
        self._cameras[key] = camera
        if len(self._cameras) > MAX_CAMERAS:
            del self._cameras[next(iter(self._cameras))]
        return camera

    def restart(self) -> None:
        for camera in self._cameras.values():
            camera.restart()
