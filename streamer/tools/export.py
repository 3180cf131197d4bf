"""Models for programs without Tamis: an ONNX graph, or regression coefficients as text."""

from __future__ import annotations

from pathlib import Path

from ... import BadFile, BadSettings
from ...models.atomic import atomic_write
from ...models.store import Store


def export(
    store: Store, name: str, version: str | None, onnx: Path | None, csv: Path | None, instrument: str = ""
) -> str:
    """Writes the files that are asked for, each whole or not at all; returns the version that is in them.

    `instrument`: whose spectra the files are for; that of the calibration if it is not said.

    Raises:
        BadSettings: no file is asked for, the model has no such form, or does not know the instrument.
        NotInstalled: the form's library is not installed. BadFile: a file cannot be written.
        NoModel, BadBundle, StoreUnusable: the version cannot be read.
    """
    if onnx is None and csv is None:
        raise BadSettings("expected --onnx FILE or --csv FILE")
    model, version = store.load(name, version)
    about = {"model": name, "version": version, "created": store.manifest(name, version)["created"]}
    of = model.instruments
    if instrument not in {"", of.master, *of.maps, *of.lines}:
        raise BadSettings(
            f"{name} {version} knows no instrument {instrument!r}; known: {', '.join(of.names) or 'none'}"
        )
    if instrument or of:
        about["instrument"] = instrument or of.master or "the one whose spectra it was fitted on"
    made: list[tuple[Path, bytes]] = []
    try:
        if csv is not None:
            from ...models.serving.to_csv import to_csv

            made.append((csv, to_csv(model, about, instrument).encode()))
        if onnx is not None:
            from ...models.serving.to_onnx import to_onnx

            made.append((onnx, to_onnx(model, store.calibration(name, version), about, instrument)))
    except ValueError as error:
        raise BadSettings(f"{name} {version}: {error}") from error
    for path, raw in made:
        try:
            with atomic_write(path) as draft:
                draft.write_bytes(raw)
        except OSError as error:
            raise BadFile(f"{path}: cannot be written: {error.strerror}") from error
    return version
