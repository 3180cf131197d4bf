"""Where the drift reference of each line is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path


def reference_path(folder: Path, line: str) -> Path:
    """A line's name may be any text: the file is named by its digest, and tells the name inside."""
    return folder / f"{hashlib.blake2b(line.encode(), digest_size=8).hexdigest()}.safetensors"


def references(folder: Path) -> dict[str, Path]:
    """line -> the file of its reference"""
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as kept:
                found[(kept.metadata() or {}).get("line", path.name)] = path
        except (OSError, SafetensorError):
            found[path.name] = path
    return found
