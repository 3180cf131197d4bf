"""The models of a store as pages of the console."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis import BadBundle, NoModel
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.tools.model_pages import overview, version_page

from ..support.models import classified


def test_each_version_has_its_page(tmp_path: Path, grid: Axis, model: Model) -> None:
    store = Store(tmp_path / "s")
    assert "No model is published" in overview(store)
    store.publish("fat", model, {"rmsecv": {"fat": 0.1234}})
    store.publish("fat", model)
    store.publish("sort", classified(grid), {"out_of_fold": {"balanced_accuracy": 0.5}})
    page = overview(store)
    assert (
        page.index('href="models/fat/v0002"') < page.index('href="models/fat/v0001"') < page.index("models/sort/v0001")
    )
    assert "fat RMSECV 0.123" in page
    assert "balanced accuracy 0.500" in page
    assert "Predicted against measured" in version_page(store, "fat", "v0001")
    assert "as PET" in version_page(store, "sort", "v0001")
    with pytest.raises(NoModel):
        version_page(store, "fat", "v0009")
    (tmp_path / "s" / "fat" / "v0002" / "manifest.json").write_text("{}")
    assert "damaged" in overview(store)
    assert "No current version" not in overview(store)
    (tmp_path / "s" / "fat" / "current").write_text("torn")
    assert "No current version:" in overview(store), "no worker can serve it"
    assert "expected a version such as v0001, got &#39;torn&#39;" in overview(store)
    with pytest.raises(BadBundle):
        version_page(store, "fat", "v0002")
