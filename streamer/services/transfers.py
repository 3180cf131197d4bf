"""When a trainer tries to let its model serve a further instrument: enough objects were seen by its master and by that.

What was tried in vain is kept in the trainer's folder, and tried again from half as many objects more, or once somebody
else has published a version.
"""

import json
import time
from pathlib import Path

import numpy as np

from ...models.atomic import atomic_write
from ...models.store import Store
from ...ssl.instrument_transfer import MIN_PAIRS, Pairs
from ...ssl.maps_from_pairs import NEWEST_SPECTRA, Seen
from ...ssl.replay_buffer import Buffer
from .jobs import Champion, Job
from .promotion import TRAINER, count_of, is_on_probation

MOST_PAIRS = 200  # the newest objects: more change a map little, and a fit of them takes longer
AGAIN = 1.5  # times as many objects as at the last try
LOOK_S = 60.0  # between two looks into the buffer, unless many spectra are new
MANY = 20  # one in so many of all spectra: a look takes a second where there are a million


class Transfers:
    """Of one model. `least`: objects; 0 means never."""

    def __init__(self, folder: Path, store: Store, name: str, least: int) -> None:
        self._path, self._store, self._name = folder / "transfers.json", store, name
        self._least = least and max(least, MIN_PAIRS)
        self._looked, self._looked_s = 0, 0.0  # how many spectra there were at the last look in vain, and when

    def is_due(self, added: int) -> bool:
        """Whether to look for objects among so many spectra."""
        if added < self._looked:  # another buffer: the model is on another grid
            self._looked = 0
        if not self._least or added == self._looked:
            return False
        many = max(self._least, self._looked // MANY)
        return added - self._looked >= many or time.monotonic() - self._looked_s >= LOOK_S

    def job(self, champion: Champion, buffer: Buffer) -> Job | None:
        """For all instruments that were seen with enough objects, if there is one that was not tried with as many."""
        known = champion.model.instruments
        foreign = sorted(name for name in buffer.pairs.instruments() if known.is_foreign(name)) if known.master else []
        objects = {name: buffer.pairs.objects(known.master, name) for name in foreign}
        tried = self._tried() if any(objects.values()) else {}
        enough = {name: those for name, those in objects.items() if len(those) >= self._least}
        is_new = any(len(those) >= AGAIN * tried.get(name, 0) for name, those in enough.items())
        if not is_new or is_on_probation(self._store.log(self._name)):
            self._looked, self._looked_s = buffer.added, time.monotonic()
            return None
        pairs = {
            name: Pairs(*buffer.pairs.spectra(those[:MOST_PAIRS], known.master, name)) for name, those in enough.items()
        }
        counts = {name: len(those) for name, those in enough.items()}
        until = {part: count_of(champion.model, part) for part in ("labels_until", "spectra_until")}  # it learns none
        seen = Seen(pairs, counts, buffer.pairs.newest(NEWEST_SPECTRA))
        return Job(champion, None, until, np.empty((0, len(buffer.grid)), np.float32), "transfer", seen=seen)

    def note(self, job: Job, outcome: str) -> None:
        """What a job has tried; not an instrument that is served now: after a rollback it is tried again."""
        if job.seen is None or outcome == "dropped":
            return
        served = self._store.manifest(self._name).get("instruments", {}).get("maps", ())
        tried = {name: n for name, n in (self._tried() | dict(job.seen.objects)).items() if name not in served}
        with atomic_write(self._path) as draft:
            draft.write_text(json.dumps({"since": self._root(), "objects": tried}) + "\n", encoding="utf-8")

    def _tried(self) -> dict[str, int]:
        """Instrument -> objects."""
        try:
            about = json.loads(self._path.read_text(encoding="utf-8"))
            return dict(about["objects"]) if about["since"] == self._root() else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}  # a file that cannot be read costs one more try

    def _root(self) -> str:
        """The newest version that somebody else published: on another one, what failed may succeed."""
        entries = self._store.log(self._name).entries
        made = [one.version for one in entries if one.action == "publish" and one.by != TRAINER]
        return made[-1] if made else ""
