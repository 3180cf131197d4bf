"""The commands that need no line: models, doctor, drift, top; their help, and what they refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.store import Store
from tamis.streamer.transport.embedded_broker import EmbeddedBroker

from ..support.drift import Line, drawing
from ..support.processes import CLEAN, tamis


def test_models_are_listed_shown_and_rolled_back(model: Model, tmp_path: Path, here: Any) -> None:
    store = Store(tmp_path / "store")
    store.publish("fat", model)
    store.publish("fat", model)
    listed = tamis("models", "list", "--store", "store", cwd=tmp_path).stdout.splitlines()
    assert [line[:12] for line in listed] == ["  fat v0001 ", "* fat v0002 "]
    shown = json.loads(here("models", "show", "fat", "v0001", "--store", "store").stdout)
    assert (shown["kind"], shown["grid"]) == ("plsr", "1000-1600 nm, 61 bands")
    assert here("models", "rollback", "fat", "--store", "store").stdout == "fat: v0002 -> v0001\n"
    assert store.current("fat") == "v0001"


def test_a_damaged_version_does_not_hide_the_others(model: Model, tmp_path: Path, here: Any) -> None:
    store = Store(tmp_path / "store")
    for _ in range(3):
        store.publish("fat", model)
    (store.root / "fat" / "v0002" / "manifest.json").write_text("{}")
    (store.root / "empty").mkdir()
    listed = here("models", "list", "--store", "store")
    assert listed.returncode == 0
    lines = listed.stdout.splitlines()
    assert [line[:12].rstrip() for line in lines] == ["! empty  no", "  fat v0001", "! fat v0002", "* fat v0003"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["fit", "meat.parquet", "--target", "fat", "--target", "fat"], "expected every target once, got fat, fat"),
        (["fit", "meat.parquet", "--target", "fat", "--preprocess", "savgol inf"], "expected finite numbers"),
        (
            ["fit", "meat.parquet", "--target", "fat", "--model", "cnn", "--components", "3"],
            "cnn takes no n_components",
        ),
        (["compare", "meat.parquet", "--target", "fat", "--json", "."], "cannot write .: it is a folder"),
        (["replay", "store"], "store: expected files of spectra in the folder, got none"),
        (["replay", "x" * 300 + ".csv"], "File name too long"),
        (["worker", "--from", "meat.parquet", "--to", "out"], "frame_max_bytes is 1000"),
        (["models", "list", "--store", "~nouser-of-that-name/x"], "expected a path or file:///path"),
    ],
)
def test_an_impossible_command_is_refused_without_a_traceback(
    words: list[str], text: str, meat: Path, model: Model, tmp_path: Path, here: Any
) -> None:
    Store(tmp_path / "store").publish("default", model)
    done = here(*words, TAMIS_FRAME_MAX_BYTES="1000")
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(
    model: Model, tmp_path: Path, tamis_broker: EmbeddedBroker, here: Any
) -> None:
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u"}
    kafka = json.dumps({"bootstrap_timeout_ms": 500, **login, "sasl_plain_password": "hunter2"})
    ill = tamis("doctor", cwd=tmp_path, TAMIS_BROKERS="127.0.0.1:1", TAMIS_KAFKA=kafka)
    assert ill.returncode == 1
    assert "hunter2" not in ill.stdout + ill.stderr
    assert "FAIL broker: no broker answers at 127.0.0.1:1" in ill.stdout
    assert "FAIL store: store does not exist; `tamis fit ... --store store` creates it" in ill.stdout
    Store(tmp_path / "store").publish("default", model)
    kafka = json.dumps(tamis_broker.client_settings)
    well = here("doctor", "--store", "store", TAMIS_BROKERS=tamis_broker.bootstrap, TAMIS_KAFKA=kafka,
                 TAMIS_METRICS__PORT="0", TAMIS_TOPICS__PREFIX="doctor")  # fmt: skip
    assert well.returncode == 0, well.stdout
    assert "FAIL" not in well.stdout
    assert "default v0001: plsr for fat on 1000-1600 nm, 61 bands" in well.stdout
    assert "doctor.spectra, doctor.predictions, doctor.rejects will be created by the worker" in well.stdout
    table = {"action": "eject", "when": "fat > 12"}
    for when, code, words in (
        ("fat > 12", 0, "61 bands; 1 rule is valid"),
        ("fett > 12", 1, "FAIL model of line 'nir1': lines: decide.rules: "),
    ):
        lines = json.dumps({"nir1": {"model": "default", "decide": {"rules": [{**table, "when": when}]}}})
        done = here("doctor", "--store", "store", TAMIS_BROKERS=tamis_broker.bootstrap,
                     TAMIS_KAFKA=kafka, TAMIS_METRICS__PORT="0", TAMIS_LINES=lines)  # fmt: skip
        assert (done.returncode, words in done.stdout) == (code, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["fit", "nowhere.csv", "--target", "fat"], 1, "nowhere.csv"),
        (["fit", "meat.parquet", "--target", "salt"], 1, "no column 'salt'; columns of numbers: fat"),
        (["fit", "meat.parquet", "--target", "time"], 1, "a target may not be called 'time'"),
        (["fit", "meat.parquet", "--target", "fat", "--model", "magic"], 2, "unknown model kind 'magic'; known: plsr"),
        (["fit", "meat.parquet", "--target", "fat", "--preprocess", "snw"], 2, "unknown pre-treatment 'snw'"),
        (["fit", "meat.parquet", "--target", "fat", "--where", "cow"], 2, "--where expects NAME=VALUE, got 'cow'"),
        (
            ["fit", "meat.parquet", "--target", "fat", "--components", "500"],
            2,
            "from 1 to 61, got 500 for 120 spectra of 61 bands",
        ),
        (["inspect", "nowhere.csv"], 1, "nowhere.csv"),
        (["inspect", "meat.parquet", "--target", "salt"], 1, "no column 'salt'"),
        (["replay", "nowhere.parquet", "--brokers", "127.0.0.1:1"], 1, "nowhere.parquet"),
        (["replay", "meat.parquet", "--rate", "5", "--realtime"], 2, "--rate and --realtime exclude each other"),
        (["models", "show", "../../etc"], 1, "expected a model name of letters"),
        (["models", "rollback", "ghost"], 1, "no model 'ghost' in the store"),
        (["worker", "--sensor", "height=h.csv"], 2, "--sensor is for files: expected --from FILE as well"),
        (["worker", "--config", "nowhere.toml"], 2, "cannot read the settings file nowhere.toml"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(words: list[str], code: int, text: str, meat: Path, here: Any) -> None:
    done = here(*words)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_shows_an_example_in_its_help(here: Any) -> None:
    commands = [
        "fit",
        "inspect",
        "models list",
        "models show",
        "models rollback",
        "worker",
        "replay",
        "broker",
        "doctor",
        "demo",
    ]
    for command in commands:
        assert f"tamis {command}" in here(*command.split(), "--help").stdout


def test_every_command_is_explained_in_one_line(tmp_path: Path) -> None:
    for group in ([], ["models"], ["drift"]):
        shown = tamis(*group, "--help", cwd=tmp_path, COLUMNS="80").stdout
        commands = shown.partition("Commands:\n")[2].rstrip().splitlines()
        assert commands
        for line in commands:
            assert re.fullmatch(r"  [a-z]+ +[A-Z].*[^.]\.", line), line


def test_help_takes_hardly_longer_than_the_library_of_its_options(tmp_path: Path) -> None:
    """A quarter of a second where typer alone takes an eighth: numpy or pyarrow would double it."""
    words = "import sys, time; sys.argv = ['tamis', '--help']\n"
    tamis = "from tamis.streamer.cli import main\ntry: main()\nexcept SystemExit: print(time.process_time())"
    took_s = {
        name: min(_processor_s(words + probe, tmp_path) for _ in range(3))
        for name, probe in {"tamis": tamis, "typer": "import typer\nprint(time.process_time())"}.items()
    }
    assert took_s["tamis"] < 2.5 * took_s["typer"]


def _processor_s(probe: str, folder: Path) -> float:
    """Of a process that prints its time last."""
    command = [sys.executable, "-c", probe]
    return float(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_reader_that_is_gone_causes_no_traceback(word: str, tmp_path: Path) -> None:
    """As with `tamis tail | head -1`."""
    command = [sys.executable, "-m", "tamis.streamer.cli", word]
    process = subprocess.Popen(command, cwd=tmp_path, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.communicate(timeout=60)[1] == b""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["models", "list"]])
def test_a_full_disk_behind_the_output_is_a_sentence(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tamis.streamer.cli", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=tmp_path, env=CLEAN, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "tamis: cannot write to standard output: No space left on device\n"
    assert done.returncode == 1


def test_a_reference_of_drift_is_listed_and_forgotten(model: Model, grid: Axis, tmp_path: Path, here: Any) -> None:
    from tamis.streamer.drift.reference_file import reference_path
    from tamis.streamer.settings.tables import Drift

    path = reference_path(tmp_path / "drift", "nir1")
    Line(model, Drift(block_spectra=16, learn_blocks=2), path).learns(drawing(grid))  # type: ignore[call-arg]
    listed = tamis("drift", "list", cwd=tmp_path)
    assert listed.stdout.startswith("nir1  20")
    wrong = here("drift", "forget", "nir2")
    assert wrong.returncode == 2
    assert "available: nir1" in wrong.stderr
    assert here("drift", "forget", "nir1").returncode == 0
    assert not path.exists()
    assert "no references" in here("drift", "list").stdout


def test_top_says_where_it_looked_when_nothing_answers(here: Any) -> None:
    done = here("top", "--once", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no metrics at http://127.0.0.1:9" in done.stdout
    assert "expects http://host:port" in here("top", "--url", "file:///etc/passwd").stderr
