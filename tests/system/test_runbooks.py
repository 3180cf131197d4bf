"""The commands of the runbooks, as they are written, on a box that is set up as docs/deploy.md says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.drift.reference_file import reference_path, save_reference
from tamis.streamer.files.frames import write_parquet
from tamis.streamer.files.instruments.envi import write_envi
from tamis.streamer.settings.load import load
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.embedded_broker import EmbeddedBroker
from tamis.streamer.transport.from_settings import kafka_sink

from ..support.paths import ROOT
from ..support.spectra import frame, simulate

SYSTEMD = ROOT / "deploy" / "systemd"
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
COMMANDS = sorted({found for page in PAGES for found in re.findall(r"`tamis ([^`]+)`", page.read_text())})
MEANT = {"NAME": "default", "VERSION": "v0002", "LINE": "nir1", "FILE": "new.parquet", "TARGET": "fat"}
MEANT |= {"SPECTRUM": "nir1-1-3", "TARGET=VALUE": "fat=10.3"}
Here = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def box(tmp_path: Path, model: Model, grid: Axis, tamis_broker: EmbeddedBroker) -> dict[str, str]:
    """The settings of a box, their paths moved into a folder; a store with two versions, a reference, and files."""
    config, state = tmp_path / "line.toml", tmp_path / "state"
    text = re.sub(r'^(store|folder) = "', rf'\1 = "{state}/', (ROOT / "deploy" / "line.toml").read_text(), flags=re.M)
    config.write_text(text.replace("localhost:9092", tamis_broker.bootstrap))
    settings = load(config)
    for _ in range(2):
        Store(settings.store).publish("default", model)
    save_reference(reference_path(Path(settings.drift.folder), "nir1"), "nir1", grid, np.zeros((2, 61)), {})
    spectra, values = simulate(60, grid)
    known = frame(grid, 60, spectra=spectra.astype(np.float32), targets={"fat": values[:, 0]})
    write_parquet(tmp_path / "new.parquet", [known])
    write_envi(tmp_path / "white.hdr", iter(np.full((4, 3, 61), 3000, np.uint16)), grid.values, "counts")
    return {"TAMIS_CONFIG": str(config), "TAMIS_TOPICS__PREFIX": f"box-{uuid.uuid4().hex[:8]}"}


def send_results(environment: dict[str, str], role: str) -> None:
    """Some for `tail` to show."""
    with pytest.MonkeyPatch.context() as changed:
        for name, value in environment.items():
            changed.setenv(name, value)
        settings = load()
    name = getattr(settings.topics, role)
    ensure_topics(settings.brokers, [name], 1, create=True, client_settings=settings.kafka)
    with closing(kafka_sink(settings)) as sink:
        for _ in range(5):
            sink.send(name, b'{"fat": 1.0, "frozen": true}', headers={"content-type": "application/x-ndjson"})
        sink.flush(10)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_runbook_works_on_a_box(command: str, box: dict[str, str], here: Here, tmp_path: Path) -> None:
    words = [MEANT.get(word, word) for word in shlex.split(command)]
    if words[0] == "tail":
        send_results(box, "rejects" if "--rejects" in words else "predictions")
        words = [word for word in words if word != "--new"]  # those are there already
    if words[0] == "top":  # else it goes on until it is stopped; no worker runs here
        words.append("--once")
    if words[0] == "replay":
        words += ["--limit", "12"]
    ended = here(*words, **box)
    said = ended.stdout + ended.stderr
    assert ended.returncode == (1 if words[0] == "top" else 0), said
    if words[:2] == ["models", "rollback"]:
        assert (tmp_path / "state" / "store" / "default" / "current").read_text().strip() == "v0001"
    if words[0] == "fit":
        assert (tmp_path / "state" / "store" / "default" / "v0003").is_dir(), "in the store that the worker serves from"
    if words[0] == "tail":
        assert sum(line.startswith("{") for line in ended.stdout.splitlines()) == 5


def test_the_command_of_a_box_has_the_user_the_settings_and_the_secrets_of_the_services(tmp_path: Path) -> None:
    assert "deploy/systemd/tamis /usr/local/bin/tamis" in (ROOT / "docs" / "deploy.md").read_text()
    secrets = tmp_path / "secrets.env"
    secrets.write_text("# a comment\n\nTAMIS_KAFKA__SASL_PLAIN_PASSWORD=p$(id) 'q\" r\n")
    text = (SYSTEMD / "tamis").read_text().replace("/etc/tamis/secrets.env", str(secrets))
    (tmp_path / "tamis").write_text(text)
    for name, script in {
        "id": "echo 0",
        "setpriv": 'printf "%s|" "$@" "$TAMIS_CONFIG" "$TAMIS_KAFKA__SASL_PLAIN_PASSWORD"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    command = ["sh", str(tmp_path / "tamis"), "models", "show", "a b"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shown = subprocess.run(command, env=os.environ | path, capture_output=True, text=True, check=True).stdout
    assert shown.split("|")[:-1] == [
        *("--reuid=tamis", "--regid=tamis", "--init-groups", "--no-new-privs", "/opt/tamis/bin/tamis"),
        *("models", "show", "a b", "/etc/tamis/line.toml", "p$(id) 'q\" r"),
    ]
