"""The SQLite file of a replay buffer: opened, made, or brought from an earlier version to this one."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import StoreUnusable
from .replay_layout import APPLICATION_ID, DAY_US, PAGE_BYTES, SCHEMA, SCHEMA_VERSION, TABLE_OF_LABELS, TABLES_OF_SEEN

# Of labels, which the files of the first versions lack.
_FIRST_COLUMNS = {"place": "INTEGER", "previous": "TEXT"}


class ReplayFile:
    """One process and one thread may hold it open. Every method raises StoreUnusable if the file is damaged.

    `synchronous` is NORMAL: after SIGKILL nothing is missing. A power cut may lose the last calls whole.
    """

    def __init__(self, path: Path, log_bytes: int) -> None:
        """Raises StoreUnusable: it is damaged or no buffer, another process has it open, or it cannot be made."""
        self.path = path
        with self.explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            self.is_new = self._open(log_bytes)
        except BaseException:
            self.db.close()
            raise

    def _open(self, log_bytes: int) -> bool:
        # Before the first access: then the lock is held until the end, and the log needs no shared memory.
        self.run("PRAGMA locking_mode = EXCLUSIVE")
        kind, tables = self.one("PRAGMA application_id"), self.one("SELECT count(*) FROM sqlite_master")
        if (kind, bool(tables)) not in ((0, False), (APPLICATION_ID, True)):
            raise StoreUnusable(f"{self.path}: expected a buffer of spectra, got another program's SQLite file")
        version = self.one("PRAGMA user_version")
        if version > SCHEMA_VERSION:
            raise StoreUnusable(f"{self.path}: made by a later version of Tamis (schema {version}): move it away")
        if not tables:
            self.run(f"PRAGMA page_size = {PAGE_BYTES}")
        checkpoint = f"wal_autocheckpoint = {log_bytes // 2 // PAGE_BYTES}"
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "cache_size = -65536", checkpoint):
            self.run(f"PRAGMA {pragma}")
        with self.transaction():
            if not tables:
                self._statements(SCHEMA)
                self.run(f"PRAGMA application_id = {APPLICATION_ID}")
            elif version < 2:
                self._from_first_version()
            elif version < SCHEMA_VERSION:
                self.run("ALTER TABLE labels ADD COLUMN since INTEGER")
            if version < SCHEMA_VERSION:  # nothing is written otherwise: the disk may be full
                self.run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return not tables

    def _from_first_version(self) -> None:
        """Identity was the id alone: it becomes the condition and day of the spectrum as well.

        Ids of spectra that have left the buffer are forgotten: their condition is not known.
        """
        for column in _FIRST_COLUMNS.keys() - {name for _, name, *_ in self.run("PRAGMA table_info(labels)")}:
            self.run(f"ALTER TABLE labels ADD COLUMN {column} {_FIRST_COLUMNS[column]}")
        self.run("DROP VIEW IF EXISTS seen")
        for table in ("seen_0", "seen_1", "labels"):
            self.run(f"ALTER TABLE {table} RENAME TO first_{table}")
        self._statements(f"{TABLES_OF_SEEN};{TABLE_OF_LABELS}")
        for table in ("seen_0", "seen_1"):
            self.run(
                f"INSERT INTO {table} SELECT id, condition, time / {DAY_US}, time, first.number "  # noqa: S608 (fixed texts)
                f"FROM first_{table} AS first JOIN spectra ON spectra.number = first.number"
            )
        self.run(
            "INSERT INTO labels (arrival, id, spectrum_id, source, day, object, condition, time, "  # noqa: S608
            f'"values", slot, joined, place, previous) SELECT arrival, id, spectrum_id, condition, '
            f"iif(condition IS NULL, NULL, time / {DAY_US}), object, condition, time, "
            f'"values", slot, joined, place, previous FROM first_labels'
        )
        for table in ("seen_0", "seen_1", "labels"):
            self.run(f"DROP TABLE first_{table}")

    def _statements(self, text: str) -> None:
        for statement in text.split(";"):
            self.run(statement)

    def close(self) -> None:
        with self.explained():
            self.db.close()

    def run(self, sql: str, *values: Any) -> list[Any]:
        with self.explained():
            return self.db.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> Any:
        return self.run(sql, *values)[0][0]

    def many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self.explained():
            self.db.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # a full disk has ended it already
                self.run("ROLLBACK")
            raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            causes = {"SQLITE_BUSY": "another process has it open", "SQLITE_NOTADB": "expected a buffer of spectra"}
            cause = causes.get(getattr(error, "sqlite_errorname", ""), "not read or written")
            raise StoreUnusable(f"{self.path}: {cause}: {error}") from error
