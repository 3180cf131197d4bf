"""The images' entrypoint: a container whose exit code needs a person is held, all others end as `tamis` did."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.paths import ROOT

HOLD = ROOT / "deploy" / "hold.sh"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the entrypoint; in place of `tamis` runs a script, which appends its words to the file `calls`."""

    def call(script: str, *words: str) -> subprocess.Popen[str]:
        tool = tmp_path / "bin" / "tamis"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{script}\n')
        tool.chmod(0o755)
        environment = os.environ | {"PATH": f"{tool.parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        return subprocess.Popen(
            ["sh", str(HOLD), *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=with_ctrl_c,
        )

    return call


def with_ctrl_c() -> None:
    """Where the tests run in the background, their shell ignores Ctrl-C, and all that they start would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("service", "code"), [("worker", 2), ("trainer", 3), ("worker", 4)])
def test_a_service_that_needs_a_person_is_held_until_it_is_stopped(
    service: str, code: int, start: Start, tmp_path: Path
) -> None:
    running = start(f"exit {code}", service, "--config", "a b.toml")
    until((tmp_path / "held").exists)
    assert running.poll() is None
    alive = start("", "--alive", "1")  # nothing listens there
    assert alive.wait(20) == 0, "a probe must not restart it"
    running.terminate()
    assert running.wait(20) == code
    assert (tmp_path / "calls").read_text() == f"{service} --config a b.toml\n", "it ran once"
    assert running.stderr is not None
    assert f"held after exit code {code}" in running.stderr.read()


@pytest.mark.parametrize("code", [0, 1, 75])
def test_any_other_end_is_passed_on(code: int, start: Start, tmp_path: Path) -> None:
    (tmp_path / "held").touch()  # a pod's /tmp outlives its container
    assert start(f"exit {code}", "worker").wait(20) == code
    assert not (tmp_path / "held").exists()
    assert start("", "--alive", "1").wait(20) != 0, "nothing answers at its port"


@pytest.mark.parametrize("command", ["fit", "doctor"])
def test_commands_are_never_held(command: str, start: Start) -> None:
    assert start("exit 2", command).wait(20) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_the_service_which_finishes_its_work(number: int, start: Start, tmp_path: Path) -> None:
    work = f"trap 'sleep 0.3; echo done >>{tmp_path}/calls; exit 0' TERM; touch {tmp_path}/up"
    work += "\nwhile :; do sleep 0.05; done"
    running = start(work, "worker")
    until((tmp_path / "up").exists)
    running.send_signal(number)
    assert running.wait(20) == 0
    assert (tmp_path / "calls").read_text() == "worker\ndone\n"
