"""Alert rules, their own tests and their runbooks, by the tools that a plant's Prometheus runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ..support.paths import ROOT

PROMETHEUS, ALERTMANAGER = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "alertmanager"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
ALERTS = [rule for group in RULES for rule in group["rules"] if "alert" in rule]


def tool(name: str, *words: str, cwd: Path = PROMETHEUS, given: str = "") -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *words], cwd=cwd, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in tool("promtool", "check", "config", "--lint=all", "prometheus.yml")


@pytest.mark.long(4)
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", "rules_test.yml")
    tested = (PROMETHEUS / "rules_test.yml").read_text()
    for rule in ALERTS:
        assert re.search(rf"alertname: {rule['alert']}\n\s+exp_alerts", tested), (
            f"{rule['alert']} never fires in the tests"
        )


def test_alertmanager_takes_its_configuration_and_pages_for_pages_only() -> None:
    assert "SUCCESS" in tool("amtool", "check-config", "alertmanager.yml", cwd=ALERTMANAGER)
    for severity, receiver in (("page", "page"), ("ticket", "ticket")):
        routed = tool(
            *("amtool", "config", "routes", "test", "--config.file=alertmanager.yml"),
            *(f"severity={severity}", "alertname=TamisDrift"),
            cwd=ALERTMANAGER,
        )
        assert routed.split()[0] == receiver


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {rule["alert"] for rule in ALERTS}
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert "summary" in rule["annotations"]


def test_rules_use_only_known_metrics() -> None:
    from tamis.streamer.monitoring.metrics import Metrics

    text = Metrics().exposition().decode()
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    recorded = {rule["record"] for group in RULES for rule in group["rules"] if "record" in rule}
    for group in RULES:
        for rule in group["rules"]:
            for name in re.findall(r"\btamis[_:][a-z0-9_:]+", rule["expr"]):
                assert re.sub(r"_(bucket|sum|count)$", "", name) in known | recorded, name


def test_promtool_takes_the_metrics_of_a_worker_that_runs() -> None:
    from tamis.streamer.monitoring.metrics import TABLE, Metrics

    meters = Metrics()
    for row in TABLE:
        if row.labels:
            meters[row.name].labels(*row.labels.split())
    assert tool("promtool", "check", "metrics", given=meters.exposition().decode()) == ""
