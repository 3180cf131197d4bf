"""Stages and the log of a model: what a person reads afterwards is what happened, also after kills and by hand."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tamis import BadBundle, NoModel, StoreUnusable
from tamis.models import history
from tamis.models.history import HISTORY
from tamis.models.model import Model
from tamis.models.prune import pruning
from tamis.models.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def stages(store: Store, name: str = "fat") -> str:
    return " ".join(store.log(name).stage(version) for version in store.versions(name))


def lines(store: Store) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.root / "fat" / HISTORY).read_bytes().splitlines()]


def test_a_version_goes_from_candidate_over_shadow_to_current_and_into_the_archive(store: Store, model: Model) -> None:
    store.publish("fat", model, stage="candidate")
    assert stages(store) == "current", "the first version: workers would have nothing to serve"
    store.publish("fat", model, stage="candidate", by="tamis fit", why="worse on the same folds")
    assert (stages(store), store.current("fat")) == ("current candidate", "v0001")
    store.set_stage("fat", "v0002", "shadow", by="tamis trainer", why="too few to judge by", figures={"rmse": 0.4})
    assert (stages(store), store.current("fat")) == ("current shadow", "v0001")
    store.promote("fat", "v0002", by="tamis trainer", why="better on 12 values")
    assert (stages(store), store.current("fat")) == ("archived current", "v0002")
    store.set_stage("fat", "v0001", "candidate")
    assert stages(store) == "candidate current"
    assert store.rollback("fat", by="tamis trainer", why="its errors are twice what it promised") == "v0001"
    assert stages(store) == "current archived"
    assert store.stage("fat", "v0002") == "archived"
    told = [(one["action"], one["version"], one["from"], one["to"], one.get("replaced")) for one in lines(store)]
    assert told == [
        ("publish", "v0001", None, "current", None),
        ("publish", "v0002", None, "candidate", None),
        ("stage", "v0002", "candidate", "shadow", None),
        ("promote", "v0002", "shadow", "current", "v0001"),
        ("stage", "v0001", "archived", "candidate", None),
        ("rollback", "v0001", "candidate", "current", "v0002"),
    ]
    shadow = store.log("fat").entries[2]
    assert (shadow.by, shadow.why, dict(shadow.figures)) == ("tamis trainer", "too few to judge by", {"rmse": 0.4})
    assert "@" in shadow.user
    assert abs(datetime.now(UTC) - shadow.time) < timedelta(minutes=5)


def test_the_log_has_what_a_version_was_trained_on(store: Store, model: Model) -> None:
    file = {"name": "meat.csv", "sha256": "ab" * 32}
    model.training |= {"files": [file], "label_ids": ["line1-17", "line1-19"]}
    store.publish("fat", model)
    published = store.log("fat").published("v0001")
    assert published is not None
    assert (published.files, published.labels) == ((file,), ("line1-17", "line1-19"))


def test_the_current_version_cannot_be_put_aside(store: Store, model: Model) -> None:
    store.publish("fat", model)
    with pytest.raises(ValueError, match="v0001 is current; promote another version"):
        store.set_stage("fat", "v0001", "archived")
    with pytest.raises(NoModel, match="no version 'v0009'"):
        store.set_stage("fat", "v0009", "archived")
    with pytest.raises(NoModel, match="no version 'v0009'"):
        store.stage("fat", "v0009")


def test_a_rollback_goes_to_what_was_current_before_and_then_further_back(store: Store, model: Model) -> None:
    """Each bundle names v0001 as its parent here: it was current when they were published."""
    store.publish("fat", model)
    for _ in range(2):
        store.publish("fat", model, stage="candidate")
    store.promote("fat", "v0002")
    store.promote("fat", "v0003")
    assert [store.rollback("fat"), store.rollback("fat")] == ["v0002", "v0001"]
    with pytest.raises(NoModel, match="v0001 has no version before it"):
        store.rollback("fat")


def test_promoting_what_is_current_changes_nothing(store: Store, model: Model) -> None:
    store.publish("fat", model)
    store.publish("fat", model)
    store.promote("fat", "v0002")
    assert len(lines(store)) == 2
    assert store.rollback("fat") == "v0001"


def test_which_version_was_current_at_a_time(store: Store, model: Model) -> None:
    begun = datetime.now(UTC)
    store.publish("fat", model)
    store.publish("fat", model)
    store.rollback("fat")
    log = store.log("fat")
    assert log.current_at(begun - timedelta(hours=1)) is None
    at = [log.current_at(entry.time + timedelta(microseconds=999)) for entry in log.entries]
    assert [one and one.version for one in at] == ["v0001", "v0002", "v0001"]


def test_a_store_of_an_older_tamis_has_stages_and_its_log_begins(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    store.rollback("fat")
    (store.root / "fat" / HISTORY).unlink()
    year_ago = time.time() - 3e7
    os.utime(store.root / "fat" / "current", (year_ago, year_ago))
    assert stages(store) == "archived current candidate"
    found = store.log("fat").current_at(datetime.fromtimestamp(year_ago + 1, UTC))
    assert found is not None
    assert (found.version, found.action) == ("v0002", "found")
    assert not (store.root / "fat" / HISTORY).exists(), "reading writes nothing"
    assert store.rollback("fat") == "v0001"
    assert [one["action"] for one in lines(store)] == ["found", "rollback"]


def test_a_current_file_changed_by_hand_is_believed_and_noted(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    time.sleep(0.02)
    (store.root / "fat" / "current").write_text("v0001")
    assert stages(store) == "current archived archived"
    log = store.log("fat")
    assert [entry.version for entry in log.entries if entry.action == "found"] == ["v0001"]
    before = log.current_at(log.entries[2].time + timedelta(milliseconds=5))
    assert before is not None
    assert before.version == "v0003"
    store.promote("fat", "v0002")
    assert [one["action"] for one in lines(store)][-2:] == ["found", "promote"]
    assert "the log has v0003 as current" in lines(store)[-2]["why"]


@pytest.mark.parametrize("torn", [b'{"time":"2026-11-03T10:00:00+00:00","act', b"\xff\x00", b'{"time": 5}\n', b"[1]\n"])
def test_a_torn_line_hides_nothing_else(store: Store, model: Model, torn: bytes) -> None:
    store.publish("fat", model)
    with open(store.root / "fat" / HISTORY, "ab") as file:
        file.write(torn)
    log = store.log("fat")
    assert (len(log.entries), log.unreadable) == (1, 1)
    store.publish("fat", model, why="after it")
    log = store.log("fat")
    assert ([entry.why for entry in log.entries], log.unreadable) == (["", "after it"], 1)


def test_many_writers_lose_no_line_and_agree_with_the_current_file(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    calls: list[Callable[[], object]] = []
    for i in range(24):
        version = f"v000{1 + i % 3}"
        calls.append(lambda version=version, i=i: store.promote("fat", version, why=str(i)))
        calls.append(lambda i=i: store.publish("fat", model, stage="candidate", why=f"p{i}"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda call: call(), calls))
    log = store.log("fat")
    made = [entry for entry in log.entries if entry.to == "current"]
    assert sum(entry.action == "publish" for entry in log.entries) == 27
    assert not [entry for entry in log.entries if entry.action == "found"]
    assert made[-1].version == store.current("fat")
    assert [entry.replaced for entry in made[1:]] == [entry.version for entry in made[:-1]]


HOLDER = """
import sys, time
from tamis.models.store import Store
with Store(sys.argv[1])._history("fat").writing():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_holder_and_is_waited_for_only_so_long(
    store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.publish("fat", model)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(store.root)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    monkeypatch.setattr(history, "_LOCK_S", 0.05)
    with pytest.raises(StoreUnusable, match=r"another process has held its lock"):
        store.set_stage("fat", "v0001", "archived")
    holder.kill()
    holder.communicate()
    store.publish("fat", model)
    assert store.current("fat") == "v0002"


def test_the_log_is_not_written_through_a_link_or_into_a_pipe(store: Store, model: Model, tmp_path: Path) -> None:
    store.publish("fat", model)
    path = store.root / "fat" / HISTORY
    path.unlink()
    outside = tmp_path / "outside"
    path.symlink_to(outside)
    for call in (store.log, store.rollback, lambda name: store.publish(name, model)):
        with pytest.raises(BadBundle, match=r"expected a file in the store .*, got a link to"):
            call("fat")
    assert not outside.exists()
    path.unlink()
    os.mkfifo(path)
    for call in (store.log, lambda name: store.publish(name, model)):
        with pytest.raises(BadBundle, match="expected a file of at most"):
            call("fat")
    assert store.current("fat") == "v0001"


def test_pruning_keeps_what_is_still_needed_and_says_why(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    store.rollback("fat")  # v0002 is current
    store.publish("fat", model, stage="shadow")  # v0004, judged against v0002
    for _ in range(3):
        store.publish("fat", model, stage="candidate")
    store.promote("fat", "v0007")
    store.publish("fat", model)
    plan = pruning(store, "fat", 1)
    assert list(plan.surplus) == ["v0001", "v0003", "v0005", "v0006"]
    assert plan.kept == {
        "v0002": "v0004 is judged against it",
        "v0004": "in shadow",
        "v0007": "a rollback makes it current",
        "v0008": "current",
    }
    on_disk = sum(path.stat().st_size for path in (store.root / "fat" / "v0003").iterdir())
    assert plan.surplus["v0003"] == on_disk
    with pytest.raises(ValueError, match="at least 1"):
        pruning(store, "fat", 0)


def test_a_deleted_version_is_gone_from_the_store_and_not_from_the_log(store: Store, model: Model) -> None:
    for _ in range(3):
        store.publish("fat", model)
    with pytest.raises(ValueError, match="v0003 is current, and is not deleted"):
        store.delete("fat", "v0003")
    store.delete("fat", "v0002", by="tamis models prune", why="old")
    assert store.versions("fat") == ["v0001", "v0003"]
    assert not [*store.root.glob("fat/.*")]
    log = store.log("fat")
    assert (log.entries[-1].version, log.entries[-1].was, log.entries[-1].to) == ("v0002", "archived", "deleted")
    assert log.published("v0002") is not None
    assert store.rollback("fat") == "v0001", "what was deleted is passed over"
    with pytest.raises(NoModel, match="no version 'v0002'"):
        store.promote("fat", "v0002")


def test_a_version_that_a_person_promotes_meanwhile_stays(tmp_path: Path, model: Model) -> None:
    store = Store(tmp_path)
    for _ in range(3):
        store.publish("meat", model)
    assert store.publish("meat", model, instead_of="v0002") == "v0004"  # decided when v0002 was current
    assert (store.current("meat"), store.stage("meat", "v0004")) == ("v0003", "candidate")
    assert not store.promote("meat", "v0004", instead_of="v0002")
    assert store.rollback("meat", "v0001", instead_of="v0002") == "v0003"
    assert store.current("meat") == "v0003"
    assert store.promote("meat", "v0004", instead_of="v0003")
    assert store.current("meat") == "v0004"
