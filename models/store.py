"""The model store: versioned bundles on a disk, written atomically, read with their checksums, rolled back.

store/<model>/<version>/manifest.json + weights.safetensors, and store/<model>/current, a file that names a version.
A bundle is written to a hidden folder, synced and renamed; then `current` is replaced. A kill between any two steps
leaves the current version as it was. `history` beside this file logs each change, and knows the stage of each version.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np

from .. import BadBundle, NoModel, StoreUnusable, __version__
from .atomic import atomic_write, remove_abandoned, sync
from .guarded_files import explained, read_inside
from .history import DELETED, History, Log, Stage
from .model import Calibration, Model
from .serving.compiled import ServedModel, serve
from .tensors import packed

FORMAT = 2  # 1 where no instrument has a map: programs that know none serve it rightly
WEIGHTS = "weights.safetensors"
CALIBRATION = "calibration.safetensors"
MANIFEST = "manifest.json"
CURRENT = "current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"v\d{4,9}")
_MAX_MANIFEST_BYTES = 1 << 23
_MAX_WEIGHTS_BYTES = 1 << 32  # a local model holds its spectra: 100,000 of 700 bands take 560 MB


class Store:
    """Bundles below one folder, a path or a ``file://`` address. Raises StoreUnusable if it cannot be used."""

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        try:
            parsed = urlparse(text)
            self.root = Path(unquote(parsed.path) if parsed.scheme else text).expanduser()
            if parsed.scheme not in ("", "file") or parsed.netloc not in ("", "localhost"):
                raise ValueError("another scheme or host")
        except (ValueError, RuntimeError) as error:  # a malformed address; a ~user that does not exist
            raise StoreUnusable(f"expected a path or file:///path as the store, got {text!r}: {error}") from error

    def names(self) -> list[str]:
        """The models in the store; none where it does not exist yet."""
        return sorted(_folders(self.root, _NAME))

    def versions(self, name: str) -> list[str]:
        """Oldest first."""
        return sorted(_folders(self._folder(name), _VERSION), key=_number)

    def current(self, name: str) -> str:
        """The version that workers serve; raises NoModel if nothing is published under that name."""
        pointer = self._folder(name) / CURRENT
        raw = self._read(pointer, max_bytes=64)
        if raw is None:
            known = ", ".join(self.names()) or "none"
            raise NoModel(f"no model {name!r} in the store {self.root.absolute()}; available: {known}")
        text = raw.decode(errors="replace").strip()
        if not _VERSION.fullmatch(text):
            raise BadBundle(f"{pointer}: expected a version such as v0001, got {text[:40]!r}")
        return text

    def manifest(self, name: str, version: str | None = None) -> dict[str, Any]:
        """A version's manifest with its checksum verified; the current version if none is named."""
        version = self.current(name) if version is None else version
        path = self._version_folder(name, version) / MANIFEST
        raw = self._read(path, _MAX_MANIFEST_BYTES)
        if raw is None:
            raise self._no_version(name, version)
        try:
            manifest = json.loads(raw)
            expected = str(manifest.pop("checksum"))
            actual = _sha256(_canonical(manifest))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadBundle(f"{path}: expected a manifest with a checksum: {error}") from error
        _check(path, expected, actual)
        if manifest.get("format") not in (1, FORMAT):
            raise BadBundle(f"{path}: expected bundle format 1 or {FORMAT}, got {manifest.get('format')!r}")
        files = manifest.get("files")
        listed = files if isinstance(files, dict) else {}
        if WEIGHTS not in listed:
            raise BadBundle(f"{path}: expected the checksum of {WEIGHTS}, got none")
        if not all(isinstance(about, dict) and isinstance(about.get("sha256"), str) for about in listed.values()):
            raise BadBundle(f"{path}: expected a sha256 of each file, got another shape")
        with explained(path.parent, "read"):
            there = {entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")}
        foreign = sorted(name for name in there | set(listed) if Path(name).suffix not in (".json", ".safetensors"))
        if foreign:  # a pickle, or weights that can only be read by unpickling
            raise BadBundle(f"{path.parent}: expected JSON and safetensors alone, got {foreign[0]!r:.80}")
        return manifest

    def load(self, name: str, version: str | None = None) -> tuple[Model, str]:
        """A model and its version, checksums verified.

        Raises NoModel; BadBundle if it is damaged; NotInstalled for a network where torch is not installed.
        """
        version = self.current(name) if version is None else version
        with self._opened(name, version) as (manifest, arrays):
            return Model.from_parts(manifest, arrays), version

    def serve(self, name: str, version: str, threads: int = 0) -> ServedModel:
        """A version compiled for the line, checksums verified. Raises NoModel or BadBundle."""
        with self._opened(name, version) as (manifest, arrays):
            return serve(manifest, arrays, self.calibration(name, version), threads)

    @contextmanager
    def _opened(self, name: str, version: str) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
        """Yields a bundle's manifest and arrays; errors in the block name its folder too."""
        folder = self._version_folder(name, version)
        try:
            manifest = self.manifest(name, version)
            yield manifest, self._arrays(folder, manifest, WEIGHTS)
        except BadBundle as error:
            if str(folder) in str(error):
                raise
            raise BadBundle(f"{folder}: {error}") from error

    def calibration(self, name: str, version: str) -> Calibration | None:
        """The labeled spectra that a version was fitted on, if its bundle holds them. Raises NoModel or BadBundle."""
        manifest = self.manifest(name, version)
        if CALIBRATION not in manifest["files"]:
            return None
        arrays = self._arrays(self._version_folder(name, version), manifest, CALIBRATION)
        return Calibration.from_arrays(arrays, manifest)

    def _arrays(self, folder: Path, manifest: dict[str, Any], file: str) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = folder / file
        raw = self._read(path, _MAX_WEIGHTS_BYTES)
        if raw is None:
            raise BadBundle(f"{path}: missing; the manifest lists it")
        _check(path, manifest["files"][file]["sha256"], _sha256(raw))
        try:
            return load(raw)
        except (SafetensorError, LookupError, TypeError, ValueError) as error:  # all but the first: an unknown dtype
            raise BadBundle(f"{path}: expected safetensors: {error}") from error

    def _read(self, path: Path, max_bytes: int) -> bytes | None:
        return read_inside(self.root, path, max_bytes)

    def publish(
        self,
        name: str,
        model: Model,
        metrics: dict[str, Any] | None = None,
        *,
        stage: Stage = "current",
        by: str = "Python",
        why: str = "",
        instead_of: str | None = None,
    ) -> str:
        """Writes a new version; returns its name (v0001, v0002, ...). Workers switch to it if its stage is "current".

        The first version of a name always becomes current. Where another version than `instead_of` is current by then,
        it stays, and this one is a candidate. `by` and `why` are for the log, which also gets the lists
        "label_ids" and "files" (each with name and sha256) of `model.training`.
        """
        folder = self._folder(name)
        parts, arrays = model.to_parts()
        libraries = {}
        for library in ("numpy", "scikit-learn", "torch"):
            with suppress(PackageNotFoundError):  # torch need not be installed, nor its folder be readable
                libraries[library] = package_version(library)
        files = {WEIGHTS: packed(arrays)}
        if model.calibration is not None:
            files[CALIBRATION] = packed(model.calibration.arrays())
        parent: str | None = None
        with suppress(NoModel):
            parent = self.current(name)
        with explained(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder, ".*.tmp")
            draft = folder / f".{uuid.uuid4().hex}.tmp"
            draft.mkdir()
            try:
                for file, raw in files.items():
                    _write(draft / file, raw)
                for number in count(1 + max(map(_number, self.versions(name)), default=0)):
                    manifest = {
                        "format": FORMAT if model.instruments.maps or model.instruments.lines else 1,
                        "model": name,
                        "version": f"v{number:04d}",
                        "parent": parent,
                        "created": datetime.now(UTC).isoformat(timespec="seconds"),
                        **parts,
                        "metrics": metrics or {},
                        "libraries": {"python": platform.python_version(), "tamis": __version__, **libraries},
                        "files": {file: {"bytes": len(raw), "sha256": _sha256(raw)} for file, raw in files.items()},
                    }
                    signed = {**manifest, "checksum": _sha256(_canonical(manifest))}
                    _write(draft / MANIFEST, json.dumps(signed, indent=1).encode())
                    sync(draft)
                    try:
                        os.rename(draft, folder / manifest["version"])
                        break
                    except OSError:  # another publisher took this number: try the next
                        if not (folder / manifest["version"]).exists():
                            raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)  # nothing is left of it once it was renamed
            sync(folder)
            learned = {"labels": model.training.get("label_ids", ()), "files": model.training.get("files", ())}
            with self._history(name).writing() as change:
                to = "current" if change.log.current is None else stage
                if to == "current" and instead_of not in (None, change.log.current):
                    to = "candidate"
                change.note("publish", manifest["version"], to, by, why, parent=parent, **learned)
                if to == "current":
                    _point(folder, manifest["version"])
        return manifest["version"]

    def log(self, name: str) -> Log:
        """Every change of a model's versions, and their stages."""
        return self._history(name).read()

    def stage(self, name: str, version: str) -> Stage:
        """Raises NoModel if there is no such version."""
        self._exists(name, version)
        return self.log(name).stage(version)

    def set_stage(
        self,
        name: str,
        version: str,
        stage: Stage,
        *,
        by: str = "Python",
        why: str = "",
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """Moves a version to another stage; "current" promotes it. `figures` are kept in the log.

        Raises NoModel; ValueError for the current version, which leaves its stage only as another becomes current.
        """
        if stage == "current":
            self.promote(name, version, by=by, why=why, figures=figures)
            return
        with self._history(name).writing() as change:
            self._exists(name, version)
            if version == change.log.current:
                raise ValueError(f"model {name!r}: {version} is current; promote another version, then it is archived")
            change.note("stage", version, stage, by, why, figures=figures or {})

    def rollback(
        self, name: str, to: str | None = None, *, by: str = "Python", why: str = "", instead_of: str | None = None
    ) -> str:
        """Makes an older version current, `to` or the one that was current before this one was promoted; returns it.

        Where another version than `instead_of` is current by then, that one stays, and is returned.
        """
        to = self.previous(name) if to is None else to
        if to is None:
            raise NoModel(f"model {name!r}: {self.current(name)} has no version before it to roll back to")
        return to if self._make_current(name, to, "rollback", by, why, {}, instead_of) else self.current(name)

    def previous(self, name: str) -> str | None:
        """The version that a rollback makes current, None if there is none; one that was deleted is passed over."""
        version, log = self.current(name), self.log(name)
        before = log.before(version) or self.manifest(name, version)["parent"]
        passed = {version}
        while before is not None and not self._version_folder(name, before).is_dir():
            passed.add(before)
            before = log.before(before)
            before = None if before in passed else before
        return before

    def promote(
        self,
        name: str,
        version: str,
        *,
        by: str = "Python",
        why: str = "",
        figures: Mapping[str, Any] | None = None,
        instead_of: str | None = None,
    ) -> bool:
        """Makes any version current, after compiling it as a worker does, as a check.

        Returns False, and changes nothing, where another version than `instead_of` is current by then.
        """
        return self._make_current(name, version, "promote", by, why, figures or {}, instead_of)

    def delete(self, name: str, version: str, *, by: str = "Python", why: str = "") -> None:
        """Deletes a version. Raises NoModel; ValueError for the current one. `prune` says which may go."""
        folder = self._folder(name)
        with self._history(name).writing() as change, explained(folder / version, "write"):
            self._exists(name, version)
            if version == change.log.current:
                raise ValueError(f"model {name!r}: {version} is current, and is not deleted")
            change.note("prune", version, DELETED, by, why)
            gone = folder / f".{uuid.uuid4().hex}.tmp"  # a kill leaves no half of a version
            (folder / version).rename(gone)
            sync(folder)
            gone.unlink() if gone.is_symlink() else shutil.rmtree(gone)

    def _make_current(
        self,
        name: str,
        version: str,
        action: str,
        by: str,
        why: str,
        figures: Mapping[str, Any],
        instead_of: str | None = None,
    ) -> bool:
        self.serve(name, version)
        folder = self._folder(name)
        with self._history(name).writing() as change, explained(folder, "write"):
            self._exists(name, version)
            if instead_of not in (None, change.log.current):
                return False
            if version != change.log.current:
                change.note(action, version, "current", by, why, figures=figures)
                _point(folder, version)
        return True

    def _exists(self, name: str, version: str) -> None:
        if not self._version_folder(name, version).is_dir():
            raise self._no_version(name, version)

    def _no_version(self, name: str, version: str) -> NoModel:
        known = ", ".join(self.versions(name)) or "none"
        return NoModel(f"no version {version!r} of model {name!r} in {self.root}; available: {known}")

    def _history(self, name: str) -> History:
        def current() -> str | None:
            with suppress(NoModel, BadBundle):  # a damaged pointer is put right by promoting any version
                return self.current(name)
            return None

        folder = self._folder(name)
        return History(self.root, folder, folder / CURRENT, current)

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NoModel(f"expected a model name of letters, digits, '-' and '_' (64 at most), got {name[:80]!r}")
        folder = self.root / name
        if folder.is_symlink() and not folder.resolve().is_relative_to(self.root.resolve()):
            raise BadBundle(f"{folder}: expected a folder in the store {self.root}, got a link to {folder.resolve()}")
        return folder

    def _version_folder(self, name: str, version: str) -> Path:
        if not _VERSION.fullmatch(version):
            raise NoModel(f"expected a version such as v0001 of model {name!r}, got {version[:40]!r}")
        return self._folder(name) / version


def _folders(folder: Path, pattern: re.Pattern[str]) -> list[str]:
    """The names of the folders in a folder that match; none if it does not exist."""
    with explained(folder, "read"), suppress(FileNotFoundError):
        return [entry.name for entry in folder.iterdir() if pattern.fullmatch(entry.name) and entry.is_dir()]
    return []


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync(path)


def _point(folder: Path, version: str) -> None:
    with atomic_write(folder / CURRENT) as draft:
        draft.write_bytes(version.encode())


def _number(version: str) -> int:
    return int(version[1:])


def _check(path: Path, expected: str, got: str) -> None:
    if expected != got:
        raise BadBundle(
            f"{path}: wrong checksum: expected sha256 {expected[:16]}..., got {got[:16]}...; "
            "publish it again, or go back with `tamis models rollback`"
        )


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
