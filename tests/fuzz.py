"""Coverage-guided fuzzing of every decoder and file reader: ``python -m tests.fuzz --cases 1000000``.

Each target of `support/hostile/` runs in its own process, so that a crash in native code is a finding and does not
end the run; the current case is kept in memory that outlives the process. Findings are written to ``--out``, one per
kind.

Atheris guides the mutations by the coverage of Tamis's code. If it is not installed, they are drawn at random.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib
import importlib.util
import mmap
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path
from random import Random
from typing import Any

SHM = Path("/dev/shm")
MAX_CASE_S = 20  # a case that takes longer counts as a hang
MAX_MEMORY = 6 << 30  # bytes of address space, in addition to what is mapped at the start
MAX_DEATHS = 20  # of a target's process; then the next target follows
_HEAD = struct.Struct("<QQQQ")  # cases, read, peak kB, length of the current case
_MAX_CASE = 1 << 17


class Scratch:
    """Memory that the parent can read after its child has died."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        if new:
            path.write_bytes(bytes(_HEAD.size + _MAX_CASE))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def set(self, cases: int, read: int, peak_kb: int, case: bytes) -> None:
        case = case[:_MAX_CASE]
        self.memory[_HEAD.size : _HEAD.size + len(case)] = case
        _HEAD.pack_into(self.memory, 0, cases, read, peak_kb, len(case))

    def get(self) -> tuple[int, int, int, bytes]:
        cases, read, peak_kb, length = _HEAD.unpack_from(self.memory)
        return cases, read, peak_kb, self.memory[_HEAD.size : _HEAD.size + length]


def keep_finding(out: Path, target: str, kind: str, text: str, case: bytes) -> None:
    name = f"{target.replace(' ', '-')}-{hashlib.sha256(kind.encode()).hexdigest()[:10]}"
    if not (out / f"{name}.txt").exists():
        (out / f"{name}.case").write_bytes(case)
        (out / f"{name}.txt").write_text(f"{kind}\n\n{text}\n")


# --- the child --------------------------------------------------------------------------------------------------------


def run_target(name: str, cases: int, seconds: float, seed: int, out: Path, scratch: Scratch) -> None:
    guided = importlib.util.find_spec("atheris") is not None
    atheris: Any = importlib.import_module("atheris") if guided else None
    # The kernel is left out: numba compiles its bytecode, which must be unchanged.
    included: dict[str, Any] = {"include": ["tamis", "tomllib"], "exclude": ["tamis.models.local_pls_kernel"]}
    with atheris.instrument_imports(**included) if guided else nullcontext():
        from .support.hostile import examination, targets

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)  # a hanging case prints its stack and dies
    target, folder = targets.TARGETS[name], Path(tempfile.mkdtemp())
    done = read = 0

    def one(case: bytes) -> None:
        nonlocal done, read
        done += 1
        scratch.set(done, read, examination.peak_kb(), case)
        signal.setitimer(signal.ITIMER_REAL, MAX_CASE_S)  # not handled: the process dies and the parent reports it
        try:
            read += examination.examine(target, case, folder)
        except examination.Finding as finding:
            last = traceback.extract_tb((finding.__cause__ or finding).__traceback__)[-1]
            kind = f"{re.sub('[0-9]+', 'N', str(finding))[:60]} at {Path(last.filename).name}:{last.name}"
            keep_finding(out, name, kind, "".join(traceback.format_exception(finding)), case)

    seeds = target.seeds()
    for case in seeds:  # late imports, compilation and caches happen before anything is measured
        with suppress(Exception):
            target.run(case, folder)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_MEMORY, size + MAX_MEMORY))
    deadline, rng = time.monotonic() + seconds, Random(seed)
    if not guided:
        while done < cases and time.monotonic() < deadline:
            one(target.mutate(rng.choice(seeds), rng)[:_MAX_CASE])
        return

    def mutate(case: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.3:  # cases kept for their coverage are mostly broken: start again from a valid one
            case = rng.choice(seeds)
        made = target.mutate(case, rng) if rng.random() < 0.85 else atheris.Mutate(case, most)
        return made[:most]

    corpus = Path(tempfile.mkdtemp())
    for i, case in enumerate(seeds):
        (corpus / str(i)).write_bytes(case)
    options = {"runs": cases, "max_total_time": int(seconds), "timeout": 0, "max_len": _MAX_CASE,
               "rss_limit_mb": 0, "seed": seed, "len_control": 0, "artifact_prefix": f"{corpus}-"}  # fmt: skip
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], one,
                  custom_mutator=mutate)  # fmt: skip
    atheris.Fuzz()


# --- the parent -------------------------------------------------------------------------------------------------------


def fuzz(name: str, cases: int, seconds: float, seed: int, out: Path) -> str:
    """Runs one target, and restarts its process when it dies; returns one line of figures."""
    began, done, read, peak_kb, features = time.monotonic(), 0, 0, 0, "-"
    for death in range(MAX_DEATHS + 1):
        # In memory if possible: a disk would take most of the time.
        with tempfile.TemporaryDirectory(prefix="tamis-fuzz-", dir=SHM if SHM.is_dir() else None) as own:
            scratch = Scratch(Path(own) / "scratch", new=True)
            left_s = seconds - (time.monotonic() - began)
            arguments = [name, str(cases - done), str(left_s), str(seed + death), str(out), str(Path(own) / "scratch")]
            env = {**os.environ, "TMPDIR": own, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
            child = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", "--child", *arguments], env=env, capture_output=True
            )
            some, some_read, some_kb, case = scratch.get()
            done, read, peak_kb = done + some, read + some_read, max(peak_kb, some_kb)
            output = child.stderr.decode(errors="replace")
            if found := re.findall(r"cov: (\d+) ft: (\d+)", output):
                features = "/".join(found[-1])
            if child.returncode == 0:
                break
            if not some:
                raise SystemExit(f"{name}: its process did not start:\n{output}")
            how = "hang" if child.returncode == -signal.SIGALRM else f"process died with {child.returncode}"
            keep_finding(out, name, f"{how}, case {hashlib.sha256(case).hexdigest()[:8]}", output[-5_000:], case)
            if done >= cases or time.monotonic() - began >= seconds:
                break
    took_s = time.monotonic() - began
    findings = len([*out.glob(f"{name.replace(' ', '-')}-*.txt")])
    return (f"{name:<16} {done:>8} {read:>8} {took_s:>7.0f} {done / took_s:>8.0f} {features:>11} "
            f"{peak_kb / 1024:>8.0f} {findings:>8}")  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        name, cases, seconds, seed, out, scratch = sys.argv[2:]
        run_target(name, int(cases), float(seconds), int(seed), Path(out), Scratch(Path(scratch)))
        return
    from .support.hostile.targets import TARGETS

    parser = argparse.ArgumentParser(description="Fuzzes every decoder and file reader.")
    parser.add_argument("--cases", type=int, default=100_000, help="number of cases, for all targets together")
    parser.add_argument("--seconds", type=float, default=3600, help="time limit for each target")
    parser.add_argument("--only", choices=TARGETS, action="append", help="this target; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="where findings are written")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: mutations are drawn at random, not guided by coverage")
    chosen = given.only or list(TARGETS)
    shares = sum(TARGETS[name].share for name in chosen)
    print(
        f"{'target':<16} {'cases':>8} {'read':>8} {'s':>7} {'cases/s':>8} {'edges/feat.':>11} {'peak MB':>8} findings"
    )
    for name in chosen:
        cases = -(-given.cases * TARGETS[name].share // shares)
        print(fuzz(name, cases, given.seconds, given.seed, given.out.resolve()), flush=True)
    if found := sorted(given.out.glob("*.txt")):
        print(*(f"{path}: {path.read_text().splitlines()[0]}" for path in found), sep="\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
