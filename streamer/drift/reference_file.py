"""The file that keeps a line's drift reference over restarts."""

import hashlib
import json
from pathlib import Path

import numpy as np
import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...models.atomic import atomic_write
from ...models.axis import Axis
from ..settings.tables import Drift as Table

log = structlog.get_logger()

Offsets = dict[str, tuple[int, float]]  # topic-partition -> newest offset, and its message's time


def reference_path(folder: Path, line: str) -> Path:
    """A line's name may be any text: the file is named by its digest and holds the name inside."""
    return folder / f"{hashlib.blake2b(line.encode(), digest_size=8).hexdigest()}.safetensors"


def references(folder: Path) -> dict[str, Path]:
    """line -> the file of its reference"""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as kept:
                found[(kept.metadata() or {}).get("line", path.name)] = path
        except (OSError, SafetensorError):
            found[path.name] = path
    return found


def save_reference(path: Path, line: str, grid: Axis, spectra: np.ndarray, seen: Offsets) -> bool:
    """Whole or not at all; False where the disk is full or absent: that costs the file, not the monitoring."""
    about = {"line": line, "grid": json.dumps(grid.to_json()), "seen": json.dumps(seen)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as draft:
            save_file({"spectra": spectra}, draft, metadata=about)
    except (OSError, SafetensorError) as error:
        log.error("drift: the reference cannot be saved; a restart will lose it", line=line, error=str(error))
        return False
    return True


def load_reference(path: Path, line: str, grid: Axis, table: Table) -> tuple[list[np.ndarray], Offsets] | None:
    """Its blocks, and the offsets they reach to; None where there is no file, or one of another grid or block size."""
    if not path.is_file():
        return None
    n = table.block_spectra
    try:
        with safe_open(path, "np") as kept:
            about = kept.metadata() or {}
            of_grid = Axis.from_json(json.loads(about["grid"]))
            seen = {str(k): (int(offset), float(t)) for k, (offset, t) in json.loads(about["seen"]).items()}
            shape = kept.get_slice("spectra").get_shape()  # costs nothing; the array itself may fill the memory
            fits = len(shape) == 2 and shape[1] == len(of_grid) and shape[0] <= n * table.learn_blocks
            spectra = kept.get_tensor("spectra") if fits else np.empty((0, 0))
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        log.error("drift: reference unreadable; learning a new one", file=str(path), error=str(error))
        return None
    if not fits or of_grid != grid or len(spectra) % n or not np.isfinite(spectra).all():
        log.warning("drift: the reference is of another grid or size; learning a new one", line=line)
        return None
    return (np.split(spectra, len(spectra) // n) if len(spectra) else []), seen
