"""The gate: a candidate replaces the champion only if it is shown to do no harm; else it is refused, with a reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..models.evaluation import paired_difference
from .pretrain import Health

MARGIN = 0.02
CONFIDENCE = 0.8  # of the paired bootstrap's bound
MAX_MOVE = 3.0  # change of a stream's predictions, over the champion's error plus its disagreement on pairs
COST = 1.0  # of learning: squared errors of the calibration, in all
EXPLAINED = 1.5  # as far as the champion was found wrong, and half as much again: it is known from few values
MIN_GAIN = 0.01  # over a random encoder, on labels or on pairs, that a trained one must show somewhere
FEW_VALUES = 20  # laboratory values of the running process: fewer cannot judge a new fit or an encoder
MIN_RANK = 0.3  # share of the champion's effective rank
MIN_OVERLAP = 0.2  # share of the ten nearest neighbours that are also the champion's


class Check(NamedTuple):
    """One test of a candidate: its outcome, and the finding in words and figures.

    Attributes:
        enough: False where it passed on too little to judge by.
    """

    name: str
    passed: bool
    finding: str
    enough: bool = True


@dataclass(frozen=True)
class Verdict:
    """All checks; a single failed one refuses the candidate, and one with too little to judge by makes it a shadow."""

    checks: Sequence[Check]

    @property
    def promoted(self) -> bool:
        return all(check.passed and check.enough for check in self.checks)

    @property
    def shadow(self) -> bool:
        """Whether it did no harm in what there is to judge by, which is too little."""
        return all(check.passed for check in self.checks) and not self.promoted

    @property
    def reason(self) -> str:
        """In one line: why it was refused, or what it was promoted on."""
        failed = [check for check in self.checks if not check.passed]
        return "; ".join(f"{check.name}: {check.finding}" for check in failed or self.checks) or "nothing to judge by"

    def to_json(self) -> dict[str, Any]:
        # "told" is the key in the manifests of stored models.
        checks = [{"name": one.name, "passed": one.passed, "told": one.finding} for one in self.checks]
        return {"promoted": self.promoted, "checks": checks}


@dataclass(frozen=True)
class Probe:
    """Samples that none of the contenders was fitted on: laboratory values, and each contender's predictions.

    Attributes:
        name: such as "newest labels", or a gold set's. measured: (n,). predicted: contender -> (n,): a "candidate";
            "champion" may be missing; "random" (the same heads on an encoder never trained) and "plsr" are controls.
    """

    name: str
    measured: np.ndarray
    predicted: Mapping[str, np.ndarray]

    def rmse(self, contender: str) -> float:
        return float(np.sqrt(np.mean((self.predicted[contender] - self.measured) ** 2)))


def judge(
    probes: Sequence[Probe],
    disagreement: Mapping[str, float],
    health: Health | None = None,
    champion_health: Health | None = None,
    margin: float = MARGIN,
    moved: tuple[float, float] | None = None,
    error: float | None = None,
    mapped: float | None = None,
) -> Verdict:
    """Makes every check that is possible; before there are labels, pairs and health alone decide.

    Args:
        disagreement: "candidate", "champion" and "random" -> mean squared difference of predictions on the two spectra
            of held-out pairs, in variances of the target; empty if there are no pairs or no heads.
        health: of the candidate's encoder; None if the encoder is the champion's own.
        margin: tolerated increase of RMSE and of disagreement on pairs, a share of the champion's.
        moved: if the running stream has no labels, by how much the candidate would change its predictions, and the
            champion's error, as root mean squares in sd of the target: a larger change than errors and pairs explain is
            no correction.
        error: of the candidate, out of fold, in sd of the target: two spectra of one object may not differ by more,
            whatever the champion does.
        mapped: as `error`, of a champion that serves other instruments by their maps: then the candidate must be better
            than it, in squared errors and changes within pairs together.
    """
    checks = [check for probe in probes for check in _no_worse(probe, margin)]
    if {"candidate", "champion"} <= disagreement.keys():
        ours, theirs = disagreement["candidate"], disagreement["champion"]
        finding = f"predictions of pairs differ by {ours**0.5:.3g} sd, the champion's by {theirs**0.5:.3g}"
        passed = ours <= theirs * (1 + margin) ** 2 + 1e-12
        if error is not None:
            finding += f"; its own error is {error:.3g}"
            passed = passed and ours**0.5 <= error
        checks.append(Check("pairs", passed, finding))
        if error is not None and mapped is not None:
            expected, linear = ((one**2 + change) ** 0.5 for one, change in ((error, ours), (mapped, theirs)))
            finding = (
                f"error expected with a map {expected:.3g} sd, of the champion {linear:.3g}; only less is published"
            )
            checks.append(Check("map", expected < linear, finding))
    if any("random" in probe.predicted for probe in probes):
        checks.append(_gains(probes, disagreement))
    if moved is not None:
        by, error = moved
        allowed = MAX_MOVE * (error + disagreement.get("champion", 0.0) ** 0.5)
        finding = (
            f"its predictions would move by {by:.3g} sd, though no laboratory value says so; allowed {allowed:.3g}"
        )
        checks.append(Check("stream", by <= allowed, finding))
    if health is not None:
        least = MIN_RANK * champion_health.rankme if champion_health else 2.0
        finite = np.isfinite([health.rankme, health.alignment, health.uniformity]).all()
        finding = f"effective rank {health.rankme:.1f}, at least {least:.1f}"
        checks.append(Check("rank", bool(finite and health.rankme >= least), finding))
        finding = f"{health.overlap:.0%} of the nearest neighbours are the champion's, at least {MIN_OVERLAP:.0%}"
        checks.append(Check("memory", health.overlap >= MIN_OVERLAP, finding))
    return Verdict(checks)


def forward_check(
    target: str,
    unit: str,
    measured: np.ndarray,
    candidate: np.ndarray,
    base: np.ndarray,
    error: float,
    margin: float = MARGIN,
) -> Check:
    """Has learning helped so far? Each value was predicted from those before it, and by the calibration alone.

    Args:
        measured, candidate, base: (n,), n at least 1, in the target's unit.
        error: of the calibration, out of fold. Finding out costs something: all squared errors together may have grown
            by its square.
    """
    ours, theirs = (float(np.sqrt(np.mean((one - measured) ** 2))) for one in (candidate, base))
    n = len(measured)
    allowed = float(np.sqrt((theirs * (1 + margin)) ** 2 + COST * error**2 / n))
    values = "the first value" if n == 1 else f"{n} values, each predicted from those before it"
    finding = f"{values}: RMSE {ours:.3g} {unit}".rstrip() + f", {theirs:.3g} without learning, allowed {allowed:.3g}"
    return Check(f"{target}, forward", ours <= allowed, finding)


def allowed_move(known: np.ndarray, error: float) -> float:
    """Of predictions of the stream, root mean square; the arguments are those of `stream_check`."""
    return EXPLAINED * float(np.sqrt(np.mean(known**2))) + error


def stream_check(target: str, unit: str, moves: np.ndarray, known: np.ndarray, error: float) -> Check:
    """Predictions of the newest spectra may move as far as the champion was found wrong, and its own error.

    Args:
        moves: (n,), of the predictions. known: (m,), the champion's errors on values that it has not seen.
        error: of the champion, out of fold. All in the target's unit.
    """
    by, most = float(np.sqrt(np.mean(moves**2))), float(np.abs(moves).max(initial=0.0))
    allowed = allowed_move(known, error)
    what = f"predictions of the newest {len(moves)} spectra move by {by:.3g} {unit}".rstrip()
    finding = f"{what}, {most:.3g} at most; by the {len(known)} new values, {allowed:.3g} is allowed"
    return Check(f"{target}, stream", by <= allowed and most <= MAX_MOVE * allowed, finding)


def evidence_check(values: int) -> Check:
    """Whether a candidate that differs in more than a correction was judged on enough values of the running process."""
    found = "no value" if not values else "1 value" if values == 1 else f"{values} values"
    finding = f"judged on {found} of the running process; {FEW_VALUES} are enough"
    return Check("evidence", True, finding, values >= FEW_VALUES)


def _gains(probes: Sequence[Probe], disagreement: Mapping[str, float]) -> Check:
    """An encoder that learned nothing from the stream is not worth a change: it must beat a random one somewhere."""
    best, finding = 1.0, "no labels"
    for probe in probes:
        ours, random = probe.rmse("candidate"), probe.rmse("random")
        if random > 0 and ours / random < best:
            best, finding = ours / random, f"RMSE {ours:.4g} against {random:.4g} on {probe.name}"
    if disagreement.get("random", 0.0) > 0:
        apart = (disagreement["candidate"] / disagreement["random"]) ** 0.5
        if apart < best:
            best, finding = apart, f"predictions of pairs differ by {apart:.0%} of what the random one's do"
    if best > 1 - MIN_GAIN:
        return Check("gain", False, f"nowhere {MIN_GAIN:.0%} better than an encoder never trained")
    return Check("gain", True, finding)


def _no_worse(probe: Probe, margin: float) -> list[Check]:
    """Than the champion: the upper bound of the paired difference lies within the margin.

    PLS and the random encoder are controls, not incumbents: there the difference itself is judged, not its bound.
    """
    checks, n = [], len(probe.measured)
    for other in ("champion", "random", "plsr"):
        if other not in probe.predicted:
            continue
        candidate, others = probe.predicted["candidate"], probe.predicted[other]
        by, _, high = paired_difference(probe.measured, candidate, others, confidence=2 * CONFIDENCE - 1)
        theirs = probe.rmse(other)
        allowed = margin * theirs
        judged, what = (high, "at most") if other == "champion" else (by, "by")
        finding = f"RMSE {theirs + by:.4g} against {theirs:.4g} on {n} samples, worse {what} {judged:+.3g}"
        checks.append(Check(f"{probe.name}, {other}", judged <= allowed, f"{finding}; allowed {allowed:.3g}"))
    return checks
