"""The laboratory values in a replay buffer: which spectrum each belongs to, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .replay_file import ReplayFile
from .replay_layout import DAY_US, MAX_TEXT, AmbiguousSpectrum, Asked, Given, UnknownOrigin
from .unlabeled import digests_of

_SHOWN = 5


class Identity(NamedTuple):
    """Of a spectrum beside its id: the code of its condition, and its day since 1970."""

    source: int
    day: int


class Taken(NamedTuple):
    """What became of a label: its row, whether its spectrum is known, and whether its values had been given already."""

    arrival: int
    is_joined: bool
    is_known: bool


class LabelRow(NamedTuple):
    """One spectrum's laboratory values as they are kept.

    Attributes:
        number: of its joining, as in `Labeled.joined`; 0 while it waits.
        condition, time: of the spectrum; '' and the label's own while it waits.
    """

    arrival: int
    number: int
    spectrum_id: str
    condition: str
    time: np.datetime64 | None
    values: dict[str, float]


class LabelRows:
    """The table of labels; labeled spectra lie in slots of their own, `first_slot` and up, without gaps.

    Args:
        read, write: spectra in slots. A caller opens the transactions.
    """

    def __init__(
        self,
        file: ReplayFile,
        first_slot: int,
        most: int,
        waiting: int,
        read: Callable[[np.ndarray], np.ndarray],
        write: Callable[[np.ndarray, np.ndarray], None],
    ) -> None:
        self._file, self._read, self._write = file, read, write
        self.first_slot, self.most, self.waiting = first_slot, most, waiting

    def identity(self, spectrum_id: str, asked: Asked) -> Identity | None:
        """The spectrum that a label means: of several days the latest; None if no such spectrum was seen.

        Raises:
            AmbiguousSpectrum: there are several, and the label does not say which.
            UnknownOrigin: the id is there, but nothing ever came from the line or instrument that the label says.
        """
        (key,) = digests_of([spectrum_id])
        names = self._conditions()
        known = self._file.run(
            "SELECT condition, day, time FROM seen WHERE id = ?1 UNION "
            "SELECT source, day, time FROM labels WHERE id = ?1 AND source IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM seen WHERE seen.id = ?1 AND seen.condition = source AND seen.day = labels.day) "
            "ORDER BY time",
            key,
        )
        fits = [one for one in known if asked.fits(names.get(one[0], ""), one[2])]
        if asked.time is not None and len({source for source, *_ in fits}) == 1:
            earlier = [one for one in fits if one[2] <= asked.time]
            fits = earlier[-1:] or fits[:1]
        origin = asked._replace(time=None)
        if known and not fits and not any(origin.fits(name, 0) for name in names.values()):
            of = "/".join(filter(None, origin[:2]))
            owners = ", ".join(sorted({names[source] for source, *_ in known})[:_SHOWN])
            raise UnknownOrigin(f"nothing came from {of!r} yet; {spectrum_id!r} is of {owners} (LINE/INSTRUMENT)")
        if len(fits) <= 1:
            return Identity(*fits[0][:2]) if fits else None
        shown = [f"{names[source]} on {np.datetime64(day, 'D')}" for source, day, _ in fits[-_SHOWN:]]
        more = f" and {len(fits) - _SHOWN} more" if len(fits) > _SHOWN else ""
        raise AmbiguousSpectrum(
            f"{spectrum_id!r} is the id of {len(fits)} spectra ({'; '.join(shown)}{more}: LINE/INSTRUMENT on DAY): "
            "say which by line, instrument or time"
        )

    def keep(
        self,
        spectrum_id: str,
        asked: Asked,
        values: Mapping[str, float],
        obj: int | None,
        stamp: int,
        place: int | None,
        spectrum: tuple[np.ndarray, Identity] | None,
        *,
        confirms: bool | None,
    ) -> Taken:
        """`spectrum`: that the label carries. Raises ValueError, AmbiguousSpectrum."""
        (key,) = digests_of([spectrum_id])
        identity = self.identity(spectrum_id, asked) if spectrum is None else spectrum[1]
        found = self._stored(key, identity, asked)
        arrival, before, old_place, previous, slot = found if found else (None, "{}", None, None, None)
        if confirms and (wrong := _differs(json.loads(before), values)):
            raise ValueError(f"{wrong}; nothing is confirmed")
        given = Given.after(before, old_place, previous, values, place, can_repeat=confirms is not False)
        if arrival is None:
            arrival = self._file.one(
                "INSERT INTO labels (id, spectrum_id, line, instrument, asked_time, object, time) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING arrival",
                *(key, spectrum_id[:MAX_TEXT], asked.line, asked.instrument, asked.time, obj, stamp),
            )
        self._file.run(
            'UPDATE labels SET "values" = ?, place = ?, previous = ?, object = coalesce(object, ?), '
            "time = iif(condition IS NULL, ?, time), source = coalesce(source, ?), day = coalesce(day, ?), "
            "learned = iif(?, NULL, learned) WHERE arrival = ?",
            *(*given[:3], obj, stamp, *(identity or (None, None)), given.is_again, arrival),
        )
        if slot is not None:
            if given.is_again:
                self._file.run("UPDATE labels SET joined = ? WHERE arrival = ?", self.next_joined(), arrival)
            return Taken(arrival, True, not given.is_again)
        row = None if spectrum is None else spectrum[0]
        held = self._held(key, identity)
        if row is None and held:
            row = self._read(np.array([held[0]]))
        if row is not None:
            self.join(arrival, row, *(held[1:] if held else ()))
        else:
            self._bound_waiting()
        return Taken(arrival, row is not None, bool(found) and not given.is_again)

    def _stored(self, key: int, identity: Identity | None, asked: Asked) -> Any:
        """The row of that spectrum; of an unknown one, the row of a label that said the same of it."""
        columns = 'arrival, "values", place, previous, slot'
        if identity is not None:
            sql = f"SELECT {columns} FROM labels WHERE id = ? AND source = ? AND day = ?"  # noqa: S608 (fixed text)
            found = self._file.run(sql, key, *identity)
        else:
            sql = (  # a first version kept no source of a spectrum that its label carried
                f"SELECT {columns} FROM labels WHERE id = ? AND source IS NULL AND "  # noqa: S608 (fixed text)
                "((slot IS NOT NULL AND since IS NULL) OR (line = ? AND instrument = ? AND asked_time IS ?))"
            )
            found = self._file.run(sql, key, *asked)
        if not found and asked.time is None:  # a lot by its name alone: the newest
            sql = (
                f"SELECT {columns} FROM labels WHERE id = ? AND since IS NOT NULL "  # noqa: S608 (fixed text)
                "AND line = iif(?2 = '', line, ?2) ORDER BY arrival DESC LIMIT 1"
            )
            found = self._file.run(sql, key, asked.line)
        return found[0] if found else None

    def _held(self, key: int, identity: Identity | None) -> Any:
        """slot, object, condition and time of an unlabeled spectrum that is still there."""
        sql = (
            "SELECT slot, object, spectra.condition, spectra.time "
            "FROM spectra JOIN seen ON spectra.number = seen.number "
            "WHERE seen.id = ? AND seen.condition = ? AND seen.day = ?"
        )
        found = self._file.run(sql, key, *identity) if identity is not None else []
        return found[0] if found else None

    def _bound_waiting(self) -> None:
        if self._file.one("SELECT count(*) - count(slot) FROM labels") > self.waiting:
            self._file.run("DELETE FROM labels WHERE arrival = (SELECT min(arrival) FROM labels WHERE slot IS NULL)")

    def wait_for(
        self, ids: Sequence[int | None], condition: str, times: Sequence[int], *, ids_collide: bool
    ) -> list[tuple[int, int]]:
        """(label's row, place of the spectrum) of the labels that wait for one of these spectra.

        Where ids of several conditions collide, a label that does not say its line waits for ever.
        """
        waiting = self._file.run(
            "SELECT arrival, id, line, instrument, asked_time FROM labels "
            "WHERE slot IS NULL AND since IS NULL AND id IN (SELECT value FROM json_each(?))",
            json.dumps(ids),
        )
        found = []
        for arrival, key, *asked in waiting:
            is_it = [one == key and Asked(*asked).fits(condition, time) for one, time in zip(ids, times, strict=True)]
            i = is_it.index(True) if True in is_it else None
            if i is not None and (asked[0] or asked[1] or not ids_collide):
                found.append((arrival, i))
        return found

    def join(self, arrival: int, row: np.ndarray, *of_spectrum: int | None) -> None:
        """Keeps a labeled spectrum in a slot of its own, which no unlabeled one takes.

        `of_spectrum`: its object, condition and time; nothing if only the label's are known.
        """
        slot = self.first_slot + self._file.one("SELECT count(slot) FROM labels")
        if slot == self.first_slot + self.most:
            oldest = "(SELECT min(joined) FROM labels WHERE slot IS NOT NULL)"
            slot = self._file.one(f"DELETE FROM labels WHERE joined = {oldest} RETURNING slot")  # noqa: S608
        self._write(np.array([slot]), row)
        obj, condition, time = of_spectrum or (None, None, None)
        day = None if time is None else time // DAY_US
        self._file.run(
            "UPDATE labels SET slot = ?, joined = ?, object = coalesce(object, ?), condition = ?, "
            "source = coalesce(source, ?), day = coalesce(day, ?), time = coalesce(?, time) WHERE arrival = ?",
            *(slot, self.next_joined(), obj, condition, condition, day, time, arrival),
        )

    def retract(self, spectrum_id: str, asked: Asked, targets: Collection[str]) -> LabelRow | None:
        """Takes values out, all if no target is named, and gives those; None if there are none.

        What remains is learned anew: the newest label counts as unseen.
        """
        (key,) = digests_of([spectrum_id])
        identity = self.identity(spectrum_id, asked)
        found = self._stored(key, identity, asked)
        if found is None:
            return None
        arrival, text, _, previous, slot = found
        (row,) = self._rows("arrival = ?", arrival)
        known, earlier = json.loads(text), json.loads(previous or "{}")
        gone = {target: value for target, value in known.items() if not targets or target in targets}
        if not gone:
            return None
        left = {target: value for target, value in known.items() if target not in gone}
        if left:
            earlier = json.dumps({target: value for target, value in earlier.items() if target in left})
            self._file.run(
                'UPDATE labels SET "values" = ?, previous = ? WHERE arrival = ?', json.dumps(left), earlier, arrival
            )
        else:
            self._drop(arrival, slot)
        if slot is not None:
            newest = "(SELECT max(joined) FROM labels WHERE slot IS NOT NULL)"
            self._file.run(f"UPDATE labels SET joined = ? WHERE joined = {newest}", self.next_joined())  # noqa: S608
        return row._replace(values=gone)

    def _drop(self, arrival: int, slot: int | None) -> None:
        """Deletes a label; the spectrum of the last slot fills the gap."""
        self._file.run("DELETE FROM labels WHERE arrival = ?", arrival)
        last = self._file.one("SELECT max(slot) FROM labels")
        if slot is not None and last is not None and last > slot:
            self._write(np.array([slot]), self._read(np.array([last])))
            self._file.run("UPDATE labels SET slot = ? WHERE slot = ?", slot, last)

    def joined_since(self, number: int) -> list[LabelRow]:
        """Those that were joined, or given again, after the one of this number."""
        return self._rows("joined > ? ORDER BY joined", number)

    def learn(
        self, version: str, until: int, held: Collection[tuple[str, str, float]], targets: Sequence[str]
    ) -> list[LabelRow]:
        """Notes that a version was fitted on the values up to a number; gives those that it is the first to have.

        `held`: spectrum_id, target and value of those that it was not fitted on. `targets`: a label needs all of them.
        """
        new = [
            row
            for row in self._rows("joined <= ? AND learned IS NULL ORDER BY joined", until)
            if row.values.keys() >= set(targets)
            and not any((row.spectrum_id, *one) in held for one in row.values.items())
        ]
        self._file.many("UPDATE labels SET learned = ? WHERE arrival = ?", [(version, row.arrival) for row in new])
        return new

    def request(self, spectrum_id: str, target: str, value: float) -> LabelRow | None:
        """Notes that a repeat of a value is asked for; None if it was before, or is no longer there."""
        (key,) = digests_of([spectrum_id])
        for row in self._rows("id = ? AND slot IS NOT NULL", key):
            requested = json.loads(
                self._file.one("SELECT coalesce(requested, '{}') FROM labels WHERE arrival = ?", row.arrival)
            )
            if row.values.get(target) == value and requested.get(target) != value:
                text = json.dumps(requested | {target: value})
                self._file.run("UPDATE labels SET requested = ? WHERE arrival = ?", text, row.arrival)
                return row
        return None

    def next_joined(self) -> int:
        return int(self._file.one("UPDATE state SET joined = joined + 1 RETURNING joined"))

    def _rows(self, where: str, *values: Any) -> list[LabelRow]:
        names = self._conditions()
        columns = 'arrival, coalesce(joined, 0), spectrum_id, source, time, "values"'
        sql = f"SELECT {columns} FROM labels WHERE {where}"  # noqa: S608 (our texts)
        rows = []
        for arrival, number, name, source, time, text in self._file.run(sql, *values):
            when = None if time is None else np.datetime64(time, "us")
            rows.append(LabelRow(arrival, number, name, names.get(source, ""), when, json.loads(text)))
        return rows

    def _conditions(self) -> dict[int, str]:
        return dict(self._file.run("SELECT code, name FROM conditions"))


def _differs(known: Mapping[str, float], values: Mapping[str, float]) -> str:
    """Why values that are confirmed are not those that were given; '' if they are."""
    for target, value in values.items():
        if target not in known:
            return f"no {target} was given yet"
        if known[target] != value:
            return f"{target} is {known[target]:g} now, not {value:g}"
    return ""
