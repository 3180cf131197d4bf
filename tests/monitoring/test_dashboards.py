"""The dashboards: what is committed is what the code makes, Grafana can read it, and it asks for what there is."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tamis.streamer.monitoring.metrics import Metrics

from ..support.paths import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
PAGES = sorted((GRAFANA / "dashboards").glob("*.json"))


def panels(path: Any) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["panels"]


def test_the_committed_dashboards_are_those_that_the_code_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    monkeypatch.syspath_prepend(GRAFANA)  # as where it runs as a script
    made = importlib.import_module("dashboards")
    assert {path.stem for path in PAGES} == set(made.PAGES)
    for path in PAGES:
        assert path.read_text() == made.page(path.stem), "run: python deploy/grafana/dashboards.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_grafanas_own_schema_takes_a_dashboard_whole(path: Any) -> None:
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    kept = json.loads(path.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(kept)))
    assert list(unknown(kept, read)) == [], "it would be dropped"


def unknown(kept: Any, read: Any, where: str = "") -> Iterator[str]:
    """What was not read back as it stands in the file."""
    if isinstance(kept, dict) and isinstance(read, dict):
        for key, value in kept.items():
            yield from unknown(value, read.get(key), f"{where}/{key}")
    elif isinstance(kept, list) and isinstance(read, list) and len(kept) == len(read):
        for i, pair in enumerate(zip(kept, read, strict=True)):
            yield from unknown(*pair, f"{where}/{i}")
    elif kept != read:
        yield f"{where}: {kept!r} became {read!r}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_panels_lie_side_by_side_and_say_what_they_show(path: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
    numbers = [panel["id"] for panel in panels(path)]
    assert len(set(numbers)) == len(numbers)


def test_queries_use_only_known_metrics() -> None:
    known = set(re.findall(r"^# TYPE (\S+)", Metrics().exposition().decode(), re.MULTILINE))
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    known |= {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    asked = set()
    for path in PAGES:
        for panel in panels(path):
            for target in panel["targets"]:
                names = set(re.findall(r"\b(?:tamis|process)[_:][a-z0-9_:]+", target["expr"]))
                assert names, panel["title"]
                for name in names:
                    assert re.sub(r"_bucket$", "", name) in known, f"{panel['title']}: {name}"
                asked |= names
    assert "tamis_drift_score" in asked


def test_provisioning_names_the_data_source_that_the_panels_use() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (uid,) = {source["uid"] for source in sources}
    for path in PAGES:
        for panel in panels(path):
            assert panel["datasource"]["uid"] == uid
