"""One case: it is read or clearly refused, in bounded memory, and has no effect outside its folder."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

MAX_GROWTH_KB = 64 << 10  # of the peak of resident memory, in one case


MAX_WORDS = 6_000  # characters of a refusal, which goes into a log


class Finding(AssertionError):
    """A case was neither read nor clearly refused."""


@dataclass(frozen=True)
class Target:
    """One decoder or reader. `run` reads a case in a folder and may raise only `refusals`."""

    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes]
    run: Callable[[bytes, Path], Any]
    refusals: tuple[type[Exception], ...]
    share: int = 1  # of the cases of a whole run; slow targets get fewer


def examine(target: Target, case: bytes, folder: Path) -> bool:
    """Runs a case: True if it was read, False if it was clearly refused. Raises Finding."""
    before_kb = peak_kb()
    caught: BaseException | None = None
    with _effects(folder) as effects, mock.patch.object(tempfile, "tempdir", str(folder)):
        try:
            target.run(case, folder)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a panic of a Rust library is not an Exception)
            caught = error
    chain = [caught]
    while (last := chain[-1]) is not None:
        if (cause := last.__cause__ or last.__context__) in chain:
            raise Finding(f"an error that is its own cause: {caught!s:.300}")
        chain.append(cause)
    if caught is not None and not isinstance(caught, target.refusals):
        raise Finding(f"{type(caught).__name__}: {caught!s:.300}") from caught
    if any(isinstance(error, MemoryError) for error in chain):
        raise Finding(f"ran out of memory: {caught!s:.300}") from caught
    if caught is not None and not 10 <= len(str(caught)) <= MAX_WORDS:
        raise Finding(f"a refusal of {len(str(caught))} characters: {caught!s:.100}") from caught
    if effects:
        raise Finding(f"effects outside its folder: {effects[:3]}") from caught
    if (grown_kb := peak_kb() - before_kb) > MAX_GROWTH_KB:
        raise Finding(f"memory grew by {grown_kb >> 10} MiB") from caught
    return caught is None


def peak_kb() -> int:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


_NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_watched: list[tuple[str, list[str]]] = []  # the folder that may be written to, and effects outside it


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watched:
        return
    folder, effects = _watched[-1]
    if event in _NEVER:
        effects.append(f"{event} {args!r:.200}")
    elif event in _CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES):
        paths = [os.fsdecode(path) for path in args if isinstance(path, str | bytes | os.PathLike)][
            : 1 + (event in _CHANGES)
        ]
        if any(not os.path.realpath(path).startswith(folder) for path in paths if path and "/" in path):
            effects.append(f"{event} {paths!r:.200}")


@lru_cache(maxsize=1)
def _hooked() -> None:
    sys.addaudithook(_audit)  # permanent: an audit hook cannot be removed


@contextmanager
def _effects(folder: Path) -> Iterator[list[str]]:
    _hooked()
    effects: list[str] = []
    _watched.append((os.path.realpath(folder), effects))
    try:
        yield effects
    finally:
        _watched.pop()


@contextmanager
def memory_below(most_mb: int) -> Iterator[None]:
    """Peak resident memory grows by less than `most_mb` within the block."""

    def status_kb(name: str) -> int:
        return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if name in line).split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before_kb = status_kb("VmRSS")
    yield
    assert (status_kb("VmHWM") - before_kb) / 1024 < most_mb
