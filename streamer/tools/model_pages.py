"""The versions in a store as pages: a list, and what each one's fit looks like."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ... import TamisError
from ...models.store import Store
from ..pages.charts import number, page_of
from ..pages.model_page import model_page

HEADS = ("version", "stage", "kind", "out of fold", "spectra", "made, UTC")


def overview(store: Store, *, beside_belt: bool = False) -> str:
    """Each model with its versions, the newest first. What is damaged says what is wrong with it.

    `beside_belt`: with a link to the page of the belt.
    """
    models = {name: [(version, _row(store, name, version)) for version in reversed(store.versions(name))]
              for name in store.names()}  # fmt: skip
    return page_of(
        "Models", subtitle=f"In the store {store.root}.", template="models.html.j2", models=models, heads=HEADS,
        wrong={name: _wrong(store, name) for name in models}, beside_belt=beside_belt,
    )  # fmt: skip


@lru_cache(maxsize=8)  # a version never changes
def version_page(store: Store, name: str, version: str) -> str:
    """Raises NoModel, BadBundle, and NotInstalled for a network where torch is missing."""
    model, _ = store.load(name, version)
    model.calibration = store.calibration(name, version)
    return model_page(f"{name} {version}", model)


def _wrong(store: Store, name: str) -> str:
    """Why no version of a model is served; '' where one is."""
    try:
        store.current(name)
    except TamisError as error:
        return str(error)
    return ""


def _row(store: Store, name: str, version: str) -> tuple[str, ...]:
    try:
        manifest = store.manifest(name, version)
        stage = store.stage(name, version)
    except TamisError as error:
        return ("damaged", str(error), "", "", "")
    made, spectra = manifest["created"][:16].replace("T", " "), str(manifest["training"].get("spectra", ""))
    return stage, manifest["kind"], _figure(manifest), spectra, made


def _figure(manifest: Mapping[str, Any]) -> str:
    metrics = manifest.get("metrics", {})
    if unseen := metrics.get("out_of_fold"):
        return f"balanced accuracy {unseen['balanced_accuracy']:.3f}"
    errors = {target: float(f"{error:.3g}") for target, error in metrics.get("rmsecv", {}).items()}
    return ", ".join(f"{target} RMSECV {number(error)}" for target, error in list(errors.items())[:3])
