"""A champion learns to serve further instruments, from objects that its master has seen as well; judged by the gate.

Only what leaves the champion as it is is tried: a map for each instrument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..models.instruments import UNNAMED
from ..models.model import Calibration, Model
from .gate import Check, Verdict, judge
from .instrument_transfer import Pairs, Transferred, is_matched, transfer
from .recipes import Gold, Judged, gold_probes

JUDGED_SPECTRA = 500  # of the calibration, whose predictions must stay
NEWEST_SPECTRA = 10_000  # of the stream, whose instruments must not lose what they have
CHANCE = 0.001  # of pairs that are none: nobody looks at them, and they are tried again and again


class Seen(NamedTuple):
    """What a stream shows of instruments that a champion does not serve.

    Attributes:
        pairs: of each instrument that has seen enough objects of the master. objects: how many each has seen in all.
        newest: instrument -> how many of the newest spectra are its own; of all instruments.
    """

    pairs: Mapping[str, Pairs]
    objects: Mapping[str, int]
    newest: Mapping[str, int]


def learn_maps(
    champion: Model, calibration: Calibration, seen: Seen, gold: Sequence[Gold] = (), margin: float = 0.02
) -> Judged:
    """The champion with a map for each instrument that gains by one.

    The gate refuses it if anything changes for an instrument that the champion has known, or if another one in the
    stream is trusted by T2 and Q now, and would not be beside maps.
    """
    candidate, passed, failed = champion, [], []
    done: list[Transferred] = []
    for other, pairs in seen.pairs.items():
        made = _transferred(candidate, calibration, pairs, other, seen.objects[other])
        if isinstance(made, Check):
            failed.append(made)
            continue
        candidate = made.model
        done.append(made)
        finding = (
            f"by {made.chosen.way}, from {len(pairs.master)} objects that {champion.instruments.master} has seen as "
            f"well; {made.expected()}"
        )
        passed.append(Check(f"serves {other}", True, finding))
    if not done:
        return Judged(champion, Verdict(failed))
    checks = [*passed, _unchanged(champion, candidate, calibration.spectra[:JUDGED_SPECTRA])]
    checks.append(_no_less_trusted(champion, candidate, seen.newest, failed))
    checks += judge(gold_probes({"candidate": candidate, "champion": champion}, gold), {}, margin=margin).checks
    return Judged(candidate, Verdict(checks), metrics={"transfer": _figures(done, list(candidate.instruments.maps))})


def _transferred(
    champion: Model, calibration: Calibration, pairs: Pairs, other: str, objects: int
) -> Transferred | Check:
    """Or why not."""
    master, what = champion.instruments.master, f"{other}, {objects} objects"
    if not is_matched(pairs, champion, CHANCE):
        finding = (
            "the two spectra of an object are no more alike than those of different objects: does object_id mean the "
            f"same objects for {master} and {other}?"
        )
        return Check(what, False, finding)
    try:
        made = transfer(champion, calibration, pairs, (master, other), anew=False)
    except ValueError as error:
        return Check(what, False, str(error))
    sd, (error, own) = calibration.values.std(axis=0), (made.chosen.error, made.chosen.own)
    if (bad := (error >= sd) & (own < sd)).any():
        names = ", ".join(name for name, is_bad in zip(champion.targets, bad, strict=True) if is_bad)
        return Check(what, False, f"the mean of the calibration would say as much of {names}; {made.expected()}")
    return made


def _unchanged(champion: Model, candidate: Model, spectra: np.ndarray) -> Check:
    """Whether all that was known gets the same values, T2, Q and intervals, to the last bit."""
    names, moved = ["", *champion.instruments.names], []
    for name in names:
        before, after = (one.predict(spectra, champion.grid, name) for one in (champion, candidate))
        if not all(np.array_equal(getattr(before, part), getattr(after, part)) for part in _parts(before)):
            moved.append(name)
    if moved:
        return Check("known instruments", False, f"the results of {', '.join(moved)} would change")
    return Check("known instruments", True, f"the results of {', '.join(names[1:])} stay as they are")


def _parts(result: Any) -> list[str]:
    return [name for name, part in vars(result).items() if part is not None]


def _no_less_trusted(champion: Model, candidate: Model, newest: Mapping[str, int], failed: Sequence[Check]) -> Check:
    lost = {
        f"{n} of {'no instrument by name' if name in UNNAMED else name}": n
        for name, n in newest.items()
        if champion.instruments.serves(name) and not candidate.instruments.serves(name)
    }
    why = "; ".join(f"not {check.name}: {check.finding}" for check in failed)
    if not lost:
        return Check("other instruments", True, why or "none loses trust")
    finding = (
        f"beside a map, spectra without one are not trusted, and of the newest {sum(newest.values())} there are "
        f"{', '.join(lost)}: name the instrument, let it see the same objects, or decide with `tamis transfer`"
    )
    return Check("other instruments", False, f"{finding}; {why}" if why else finding)


def _figures(done: Sequence[Transferred], names: Sequence[str]) -> dict[str, Any]:
    """As `tamis transfer` writes them; of several instruments, each way begins with a name."""
    each = [one.to_json() for one in done]
    if len(each) == 1:
        return each[0]
    tried, chosen = [], []
    for name, one in zip(names[-len(each) :], each, strict=True):
        tried += [way | {"way": f"{name}: {way['way']}"} for way in one["tried"]]
        chosen.append(f"{name}: {one['chosen']}")
    return {"tried": tried, "chosen": "; ".join(chosen)}
