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
    done = subprocess.run([name, *words], cwd=cwd, input=given, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in tool("promtool", "check", "config", "--lint=all", "prometheus.yml")


@pytest.mark.long(6)
def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", "rules_test.yml")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_each_alert_is_tested_silent_firing_and_resolved(alert: str) -> None:
    """In one and the same situation: what fires for ever, or at once, has not been tested."""
    for one in yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]:
        asked = [each for each in one.get("alert_rule_test", ()) if each["alertname"] == alert]
        fires = "".join("!" if each.get("exp_alerts") else "." for each in asked)  # in the order of time
        if ".!." in fires:
            return
    raise AssertionError(f"rules_test.yml has no test in which {alert} is silent, fires, and is silent again")


def test_a_share_counts_only_with_a_least_number() -> None:
    """One of one is no 100 %."""
    for rule in ALERTS:
        if "ratio" in rule["expr"].replace("change_ratio", "") or "/ clamp_min" in rule["expr"]:
            assert re.search(r"increase\(.*\[\w+\]\)\) >= \d", rule["expr"]), rule["alert"]


def test_no_label_is_pasted_into_a_query_unquoted() -> None:
    """A line's name may hold quotes: `printf "%q"` writes them as PromQL reads them."""
    for rule in ALERTS:
        for text in rule["annotations"].values():
            assert "%s'" not in text, rule["alert"]
            assert "='{{" not in text, rule["alert"]


def test_an_inhibition_reaches_no_further_than_what_is_down() -> None:
    for rule in yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())["inhibit_rules"]:
        assert rule["equal"] in (["job", "instance"], ["line"])


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
