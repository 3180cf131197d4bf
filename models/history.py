"""The log of a model in the store, and the stages of its versions: candidate -> shadow -> current -> archived.

store/<model>/history.jsonl has one JSON object a line. It is only appended to, under a lock, and synced. A change is
noted here before it is made. The file `current`, which workers read, stays the one truth of what they serve: where the
two differ (a kill between the two writes, or `current` changed by hand), the next writer notes what it found.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import pwd
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from .. import StoreUnusable
from .atomic import sync
from .guarded_files import explained, plain_size, read_inside, real_inside

HISTORY = "history.jsonl"
Stage = Literal["candidate", "shadow", "current", "archived"]
STAGES: tuple[Stage, ...] = get_args(Stage)
DELETED = "deleted"
_BACKWARDS = ("rollback", "found")  # actions after which another rollback goes further back, not forth again
_MAX_BYTES = 1 << 28
_LOCK_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log.

    Attributes:
        time: when it was written. since: when it began, where that is not `time` (of "found": when `current` changed).
        action: publish, promote, rollback, stage, prune, or found.
        was, to: the version's stage before (None for a new one) and after; `to` is "deleted" after prune.
        replaced: the version that was current before, if this one became current. parent: that when it was published.
        by: the program, such as "tamis fit". user: who ran it, on which host. why: a sentence.
        labels: ids of the laboratory values that it learned, as `Model.training["label_ids"]`.
        files: name and sha256 of each file that it was fitted on, as `Model.training["files"]`.
        figures: name -> value or name -> {column: value}, such as errors in shadow.
    """

    time: datetime
    action: str
    version: str
    was: str | None
    to: str
    replaced: str | None = None
    parent: str | None = None
    by: str = ""
    user: str = ""
    why: str = ""
    labels: tuple[str, ...] = ()
    files: tuple[Mapping[str, str], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    since: datetime | None = None

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Raises ValueError."""
        try:
            raw = dict(json.loads(line))
            begun = raw.get("since")
            return cls(
                time=_time(raw["time"]),
                action=str(raw["action"]),
                version=str(raw["version"]),
                was=_text_or_none(raw.get("from")),
                to=str(raw["to"]),
                replaced=_text_or_none(raw.get("replaced")),
                parent=_text_or_none(raw.get("parent")),
                by=str(raw.get("by", "")),
                user=str(raw.get("user", "")),
                why=str(raw.get("why", "")),
                labels=tuple(map(str, raw.get("labels", ()))),
                files=tuple({str(k): str(v) for k, v in one.items()} for one in raw.get("files", ())),
                figures=dict(raw.get("figures", {})),
                since=None if begun is None else _time(begun),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"expected an entry of the log: {error}") from error

    def to_json(self) -> bytes:
        """One line without its end; what is empty is left out."""
        renamed = {"was": "from"}
        raw = {renamed.get(name, name): value for name, value in vars(self).items() if value or name == "was"}
        times = {name: _written(value) for name, value in raw.items() if isinstance(value, datetime)}
        return json.dumps(raw | times, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Log:
    """What is known of a model's versions: the entries, oldest first, and the version that is current now."""

    entries: tuple[Entry, ...]
    current: str | None
    unreadable: int = 0  # lines: writes that were cut off

    def stage(self, version: str) -> Stage:
        """Without an entry (an older Tamis published it): archived before the current one, a candidate after it."""
        if version == self.current:
            return "current"
        last = next((one.to for one in reversed(self.entries) if one.version == version and one.to in STAGES), None)
        if last is not None:
            return "archived" if last == "current" else cast("Stage", last)
        return "archived" if self.current is not None and _number(version) < _number(self.current) else "candidate"

    def current_at(self, when: datetime) -> Entry | None:
        """The entry that made the version current that was so at a time; None before the first."""
        made = [one for one in self.entries if one.to == "current" and (one.since or one.time) <= when]
        return made[-1] if made else None

    def published(self, version: str) -> Entry | None:
        """The entry of its publication."""
        of = (entry for entry in self.entries if entry.version == version and entry.action == "publish")
        return next(of, None)

    def before(self, version: str) -> str | None:
        """The version that was current before this one was made so, other than by a rollback."""
        for entry in reversed(self.entries):
            if (entry.version, entry.to) == (version, "current") and entry.action not in _BACKWARDS:
                return entry.replaced
        return None


class History:
    """The log in a model's folder. `pointer`: the file that names the current version; `current` reads it."""

    def __init__(self, root: Path, folder: Path, pointer: Path, current: Callable[[], str | None]) -> None:
        self._root, self._path, self._pointer, self._current = root, folder / HISTORY, pointer, current

    def read(self) -> Log:
        """With an entry "found" at its end if the last version that was made current is not the current one."""
        entries, unreadable, current = *self._entries(), self._current()
        found = self._found(entries, current)
        return Log((*entries, *found), current, unreadable)

    @contextmanager
    def writing(self) -> Iterator[Change]:
        """Holds the model's lock: one process at a time changes stages, and notes each change before it makes it."""
        real = real_inside(self._root, self._path)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with explained(self._path, "write"):
            handle = os.open(real, flags, 0o644)
        try:
            plain_size(handle, self._path, _MAX_BYTES)
            _lock(handle, self._path)
            entries, unreadable, current = *self._entries(), self._current()
            found = self._found(entries, current)
            for entry in found:
                _append(handle, self._path, entry)
            yield Change(handle, self._path, Log((*entries, *found), current, unreadable))
        finally:
            os.close(handle)

    def _entries(self) -> tuple[list[Entry], int]:
        raw = read_inside(self._root, self._path, _MAX_BYTES) or b""
        entries: list[Entry] = []
        unreadable = 0
        for line in raw.split(b"\n"):
            try:
                if line.strip():
                    entries.append(Entry.from_json(line))
            except ValueError:
                unreadable += 1
        return entries, unreadable

    def _found(self, entries: Sequence[Entry], current: str | None) -> list[Entry]:
        named = next((entry.version for entry in reversed(entries) if entry.to == "current"), None)
        if current in (None, named):
            return []
        assert current is not None
        with explained(self._pointer, "read"):
            since = datetime.fromtimestamp(self._pointer.stat().st_mtime, UTC)
        why = "the log begins here: an older Tamis made it current"
        if named is not None:
            why = f"the log has {named} as current: that change was cut off, or the file `current` was changed by hand"
        found = Entry(
            time=datetime.now(UTC), action="found", version=current, was=None, to="current", replaced=named,
            by="Tamis", user=user(), why=why, since=since,
        )  # fmt: skip
        return [found]


@dataclass(frozen=True)
class Change:
    """What the holder of the lock knows, and where it notes what it is about to do."""

    handle: int
    path: Path
    log: Log

    def note(self, action: str, version: str, to: str, by: str, why: str, **more: Any) -> None:
        """Appends an entry and forces it onto the disk; `more` are fields of `Entry`."""
        was = None if action == "publish" else self.log.stage(version)
        replaced = self.log.current if to == "current" else None
        entry = Entry(
            time=datetime.now(UTC), action=action, version=version, was=was, to=to, replaced=replaced,
            by=by, user=user(), why=why, **more,
        )  # fmt: skip
        _append(self.handle, self.path, entry)


def _append(handle: int, path: Path, entry: Entry) -> None:
    """Adds a synced line. What a killed writer left of its own becomes a line for itself."""
    with explained(path, "write"):
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        rest = (b"\n" if torn else b"") + entry.to_json() + b"\n"
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
        if not size:
            sync(path.parent)


def user() -> str:
    """Who runs this process, on which host: such as "anna@box", or with sudo "anna as tamis@box"."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container a number is enough
        name = f"uid {os.geteuid()}"
    before = os.environ.get("SUDO_USER", "")
    before = f"{before[:64]} as " if before.isprintable() and before not in ("", name) else ""
    return f"{before}{name}@{platform.node()}"


def _lock(handle: int, path: Path) -> None:
    """Raises StoreUnusable if another process holds the lock for long. It ends with the process that holds it."""
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (EAGAIN, EACCES):  # a file system without locks: a line is still written whole
                return
            if time.monotonic() > until:
                raise StoreUnusable(
                    f"{path}: another process has held its lock for {_LOCK_S:g} s; see which with `fuser {path}`"
                ) from error
        time.sleep(0.01)


def _time(text: str) -> datetime:
    """Raises ValueError for a text without its offset from UTC."""
    read = datetime.fromisoformat(text)
    if read.tzinfo is None:
        raise ValueError(f"expected a time with its offset from UTC, got {text!r}")
    return read


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(version: str) -> int:
    return int(version[1:])
