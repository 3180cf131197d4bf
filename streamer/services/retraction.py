"""After a laboratory value was taken out again: what has learned it is not served on."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from ...models.store import Store
from .promotion import TRAINER, chosen_in, shadow_of

log = structlog.get_logger()

RETRACTION = "tamis labels retract"


def unlearn(store: Store, name: str, ids: Collection[str]) -> list[tuple[str, str, str]]:
    """Drops a shadow that has learned a value of these spectra, and serves the newest version before that has not.

    A version that a person chose stays, with a warning. Returns (outcome, version, reason) of each change.

    Raises NoModel, BadBundle, StoreUnusable.
    """
    known, changes = store.log(name), []
    learned = {one.version: set(one.labels).intersection(ids) for one in known.entries if one.action == "publish"}
    shadow = shadow_of(store, name)
    if shadow is not None and learned.get(shadow):
        why = _reason(shadow, learned[shadow])
        store.set_stage(name, shadow, "archived", by=RETRACTION, why=why)
        log.warning("shadow dropped", version=shadow, reason=why)
        changes.append(("dropped", shadow, why))
    current = before = known.current
    while before is not None and learned.get(before):
        made = chosen_in(known, before)
        if made is None or made.by != TRAINER:
            text = "the served version has learned a value that was retracted; a person chose it, so it stays"
            log.warning(text, version=current, values=sorted(learned[before]), see="tamis models rollback")
            return changes
        before = made.replaced
    if current is None or before is None or before == current:
        return changes
    why = _reason(current, learned[current])
    # A promotion, as by hand: what is learned from the values that are left needs no shadow first.
    if store.promote(name, before, by=RETRACTION, why=why, instead_of=current):
        log.warning("rolled back: a value that it had learned was retracted", version=current, to=before)
        changes.append(("rolled back", current, why))
    return changes


def _reason(version: str, ids: Collection[str]) -> str:
    return f"{version} has learned the value of {', '.join(sorted(ids))}, which was retracted"
