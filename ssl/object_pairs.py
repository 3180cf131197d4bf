"""Objects in a replay buffer that two instruments have measured: from them a model learns to serve the second one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from .calibration_transfer import object_means
from .replay_file import ReplayFile
from .replay_layout import DAY_US, columns_of

MOST_SPECTRA = 16  # of one object by one instrument, the newest: more change their mean little


class ObjectPairs:
    """The rows of the table of spectra that name their object; as measured, without any map.

    An object that one instrument has seen on several days (UTC) is left out: where a counter starts anew each day, one
    id stands for several objects.
    """

    def __init__(self, file: ReplayFile, measured: Callable[[np.ndarray], np.ndarray]) -> None:
        self._file, self._measured = file, measured

    def instruments(self) -> dict[str, list[int]]:
        """Name -> codes of its conditions, one a line; of all that was ever seen."""
        codes = defaultdict(list)
        for name, code in self._file.run("SELECT name, code FROM conditions ORDER BY code"):
            codes[name.partition("/")[2]].append(code)
        return dict(codes)

    def newest(self, most: int) -> Counter[str]:
        """Instrument -> how many of the newest spectra are its own, of those that are in the buffer."""
        found: Counter[str] = Counter()
        for name, n in self._file.run(
            "SELECT name, count(*) FROM (SELECT condition FROM spectra ORDER BY number DESC LIMIT ?) "
            "JOIN conditions ON condition = code GROUP BY code",
            most,
        ):
            found[name.partition("/")[2]] += n
        return found

    def objects(self, one: str, other: str) -> list[int]:
        """Those that both instruments have seen, the newest first."""
        codes = self.instruments()
        if not {one, other} <= codes.keys():
            return []
        ours, theirs = (_listed(codes[name]) for name in (one, other))
        days = [f"{of}(time / {DAY_US}) FILTER (WHERE condition IN ({{}}))" for of in ("min", "max")]
        same_day = " AND ".join(" = ".join(days).format(which, which) for which in (ours, theirs))
        found = self._file.run(
            f"SELECT object FROM spectra WHERE condition IN ({ours}, {theirs}) AND object IN "  # noqa: S608 (numbers)
            f"(SELECT object FROM spectra WHERE condition IN ({theirs}) AND object NOT NULL) "
            f"GROUP BY object HAVING {same_day} ORDER BY max(number) DESC"
        )
        return [row[0] for row in found]

    def spectra(self, objects: Sequence[int], one: str, other: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) twice: the means of each object's newest spectra by both instruments."""
        codes, means = self.instruments(), []
        row_of = {name: row for row, name in enumerate(objects)}
        for name in (one, other):
            kept = self._file.run(
                "SELECT object, slot FROM (SELECT object, slot, "  # noqa: S608 (numbers)
                "row_number() OVER (PARTITION BY object ORDER BY number DESC) AS age FROM spectra "
                f"WHERE condition IN ({_listed(codes[name])}) AND object IN ({_listed(objects)})) "
                f"WHERE age <= {MOST_SPECTRA}"
            )
            of, slots = columns_of(kept, 2)
            means.append(object_means(self._measured(slots), np.array([row_of[one] for one in of.tolist()])))
        return means[0], means[1]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)
