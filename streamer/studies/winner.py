"""Which model of a comparison is fitted and published: the best one, if a worker can serve it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import BadFile
from ...models import plugins
from ...models.model import CLASSIFIERS, ESTIMATORS

MAX_BYTES = 1 << 28
SERVED = {*ESTIMATORS, *CLASSIFIERS}


def winner(ranked: Sequence[str]) -> str:
    """The first of models, the best first. Raises ValueError where it can only be compared, not served."""
    best, servable = ranked[0], [name for name in ranked if name in SERVED or name in plugins.names(plugins.MODELS)]
    if best in servable:
        return best
    other = (
        f"the best of those that can is {servable[0]}: `tamis fit --model {servable[0]}`" if servable else "none can"
    )
    raise ValueError(f"{best} is the best model, but `tamis fit` cannot publish it; {other}")


def best_in(path: Path, target: str) -> str:
    """The best model of a target in a file of `tamis compare --json`, with the most labels that were tried.

    Raises:
        BadFile: it holds no comparison of that target. ValueError: as in `winner`.
    """
    try:
        cells = json.loads(_bytes_of(path))["cells"]
        errors: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for cell in cells:
            if cell.get("target", target) == target:
                errors[int(cell.get("labels", 0))][str(cell["model"])].append(_error(cell))
        if not errors:
            raise BadFile(f"{path}: expected a comparison of {target}, got one of something else")
        of = errors[max(errors)]
        return winner(sorted(of, key=lambda name: float(np.mean(of[name]))))
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error
    except (LookupError, TypeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise BadFile(f"{path}: expected what `tamis compare --target {target} --json` writes") from error
    except ValueError as error:  # of an empty comparison, or of a winner that cannot be served
        raise ValueError(f"{path}: {error}") from error


def _bytes_of(path: Path) -> bytes:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise BadFile(f"{path}: expected a file of at most {MAX_BYTES} bytes that `tamis compare --json` wrote")
    return path.read_bytes()


def _error(cell: dict[str, Any]) -> float:
    return 1 - float(cell["balanced_accuracy"]) if "balanced_accuracy" in cell else float(cell["scores"]["rmsep"])
