"""A worker's place on its host: its own while it lives, and free as soon as it has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from contextlib import closing

import pytest

from tamis.streamer.services.place import Place

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of abstract sockets")


def test_places_are_distinct_and_free_again_once_their_process_was_killed() -> None:
    group = uuid.uuid4().hex
    code = "import sys, time; from tamis.streamer.services.place import Place; place = Place(sys.argv[1]); "
    code += "print(place.name, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, group], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        first = other.stdout.readline().strip()
        with closing(Place(group)) as second, closing(Place(f"not {group}")) as elsewhere:
            assert second.name == f"{first}-1"
            assert elsewhere.name == first
        other.send_signal(signal.SIGKILL)
        other.wait()
    with closing(Place(group)) as again:
        assert again.name == first
