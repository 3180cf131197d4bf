"""The models that lines are served with: each one's current version, swapped between batches."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Self

import numpy as np
import structlog

from ... import BadBundle, NoModel, StoreUnusable
from ...models.axis import Axis
from ...models.serving.compiled import ServedModel
from ...models.store import Store
from ..settings.tables import Line

log = structlog.get_logger()


@dataclass(slots=True)
class Served:
    model: ServedModel
    version: str
    published: float  # seconds since 1970


@dataclass
class ModelServer:
    """The current version of each line's model.

    Attributes:
        lines: settings of each line; ``"*"`` stands for the lines that have none of their own.
        reload_s: how often `refresh` looks into the store for a new current version.
        loader: loads it in the background, while the version before it is served; None: the loop waits. The first
            version of a model is always waited for.
        threads: of a network's prediction; 0 takes every core.
        served: model -> what is served of it.
    """

    store: Store
    lines: Mapping[str, Line]
    reload_s: float = 2.0
    loader: Executor | None = None
    threads: int = 0
    served: dict[str, Served] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._names = sorted({line.model for line in self.lines.values()})
        self._next_look = -np.inf
        self._refused: dict[str, str] = {}
        self._loading: dict[str, tuple[str, Future[Served]]] = {}

    @classmethod
    def of(cls, store: Store, name: str, version: str | None = None) -> Self:
        """One version, or the current one, for every line. Raises NoModel, BadBundle, StoreUnusable."""
        server = cls(store, {"*": Line(model=name)})  # type: ignore[call-arg]
        server.served[name] = server._load(name, version or store.current(name))
        return server

    @property
    def missing(self) -> list[str]:
        """The models that the settings name and that are not served yet."""
        return [name for name in self._names if name not in self.served]

    def axes(self) -> dict[str, Axis]:
        """The grids of the served models, by id: a message may name one instead of listing its values."""
        return {served.model.grid.id: served.model.grid for served in self.served.values()}

    def refresh(self) -> None:
        """Serves versions that have been loaded, and starts to load new current ones.

        A version that cannot be served leaves the one before it in place.

        Raises:
            BadBundle: the bundle is damaged, and no version is served yet. StoreUnusable: likewise, the store.
        """
        for name, (version, loading) in list(self._loading.items()):
            if loading.done():
                del self._loading[name]
                self._swap(name, version, loading.result)
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self.reload_s
        for name in [name for name in self._names if name not in self._loading]:
            served = self.served.get(name)
            try:
                version = self.store.current(name)
            except NoModel:
                continue
            except (BadBundle, StoreUnusable) as error:
                self._keep_serving(name, error)
                continue
            if served is not None and version in (served.version, self._refused.get(name)):
                continue
            if served is None or self.loader is None:
                self._swap(name, version, partial(self._load, name, version))
            else:
                self._loading[name] = version, self.loader.submit(self._load, name, version)

    def _load(self, name: str, version: str) -> Served:
        published = datetime.fromisoformat(self.store.manifest(name, version)["created"]).timestamp()
        return Served(self.store.serve(name, version, self.threads), version, published)

    def _swap(self, name: str, version: str, loaded: Callable[[], Served]) -> None:
        before = self.served.get(name)
        try:
            self.served[name] = loaded()
        except NoModel:  # pruned since
            return
        except (BadBundle, StoreUnusable) as error:
            if isinstance(error, BadBundle) and before is not None:
                self._refused[name] = version
            self._keep_serving(name, error)
        else:
            self._refused.pop(name, None)
            report = self.served[name].model.report
            by = {"computed_by": str(report.backend), "error_sd": float(f"{report.error:.1e}")}
            by |= {"not_by": report.refused} if report.refused else {}
            log.info("model loaded", model=name, version=version, before=before and before.version, **by)

    def _keep_serving(self, name: str, error: BadBundle | StoreUnusable) -> None:
        if name not in self.served:
            raise error
        log.error("new version refused", model=name, kept=self.served[name].version, error=str(error))

    def serving(self, line: str) -> tuple[str, Served]:
        """The name of the line's model, and what is served of it; raises NoModel."""
        settings = self.lines.get(line, self.lines.get("*"))
        if settings is None:
            known = ", ".join(sorted(self.lines))
            raise NoModel(f"line {line!r} has no model in the settings; lines: {known}")
        served = self.served.get(settings.model)
        if served is None:
            raise NoModel(f"line {line!r}: no model {settings.model!r} is published in {self.store.root}")
        return settings.model, served
