"""Would T2 and Q see more in an encoder's embedding than in treated spectra?

    python -m tests.benchmarks.embedding_domain [--sets corn,soil]

Protocol: sets and splits are those of `honest_limits`. An encoder is pretrained on the calibration spectra alone (200
steps of the default network). T2 and Q, with limits from spectra that their subspace has not seen, are taken of the
treated spectra, of both side by side (each scaled by its total sd), and of the embedding alone. Share of spectra over
the 99 % limit of either; and how well the larger of T2 and Q over their limits tells the new condition from the same
one (area under the curve, 0.5 is chance). Nothing is chosen.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import roc_auc_score

from tamis.models.applicability_domain import ApplicabilityDomain, principal_components, unseen_t2_q
from tamis.models.preprocess import Pipeline
from tamis.ssl.pretrain import Recipe, pretrain
from tamis.ssl.unlabeled import Unlabeled

from .honest_limits import SETS, TREATMENT, spectra_of
from .page import put

SPACES = ("treated", "both", "embedding")


def ratios(space: np.ndarray, calibration: np.ndarray, values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n, k) spectra in one space -> (n,), the larger of T2 and Q over their 99 % limits."""
    domain = ApplicabilityDomain.principal(space[calibration])
    components = domain.rotations.shape[1]
    t2, q = unseen_t2_q(
        space[calibration], values, group, lambda rows, _: principal_components(rows, min(components, len(rows) - 1))
    )
    domain = domain.limited(t2, q)
    t2, q = domain.t2_q(space)
    return np.maximum(t2 / domain.t2_limits[1], q / domain.q_limits[1])


def measured(name: str, labels: int | None) -> list[tuple[float, float, float]] | None:
    """Of each space: shares over the limit under the same and under the new condition, and the area under the curve."""
    spectra, axis, values, group, (calibration, same, new) = spectra_of(name)
    rows = np.flatnonzero(calibration)
    if labels is not None:
        if labels >= len(rows):
            return None
        rows = np.random.default_rng(0).permutation(rows)[:labels]
    pipeline = Pipeline.parse("centre" if name.startswith("forages") else TREATMENT)
    pipeline.fit(spectra[rows], axis)
    objects = np.unique(group[rows], return_inverse=True)[1]
    unlabeled = Unlabeled(
        spectra[rows].astype(np.float32), objects, np.zeros(len(rows), np.int64), np.ones(len(rows), bool)
    )
    recipe = Recipe(preprocess=str(pipeline), steps=200, augment="scatter 0.05, offset 0.02", differences=0)
    encoder, _ = pretrain(unlabeled, axis, recipe, device="cpu")
    parts = [pipeline.transform(spectra, axis), encoder.embed(spectra)]
    treated, embedding = (part / np.sqrt(part[rows].var(axis=0).sum()) for part in parts)
    found = []
    for space in (treated, np.hstack([treated, embedding]), embedding):
        ratio = ratios(space, rows, values[rows, None], group[rows])
        area = (
            roc_auc_score(np.repeat([0, 1], [same.sum(), new.sum()]), np.r_[ratio[same], ratio[new]])
            if new.any()
            else np.nan
        )
        found.append((np.mean(ratio[same] > 1), np.mean(ratio[new] > 1) if new.any() else np.nan, area))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", default="", help="beginnings of names, separated by commas; all if not given")
    asked = parser.parse_args()
    lines = [f"| set | labels | {' | '.join(SPACES)} |", "|---" * (len(SPACES) + 2) + "|"]
    cells = []
    for name in SETS:
        for labels in (100, None):
            if name.startswith(tuple(asked.sets.split(","))) and (found := measured(name, labels)) is not None:
                cells.append(found)
                shown = " | ".join(f"{100 * same:.1f}, {100 * new:.0f}, {area:.2f}" for same, new, area in found)
                lines.append(f"| {name} | {labels or 'all'} | {shown} |".replace("nan", "-"))
                print(lines[-1], flush=True)
    means = np.nanmean(np.array(cells), axis=0)
    lines.append(f"| mean | | {' | '.join(f'{100 * a:.1f}, {100 * b:.0f}, {c:.2f}' for a, b, c in means)} |")
    print(lines[-1])
    if not asked.sets:
        put(
            "embedding-domain",
            f"""## T2 and Q of an encoder's embedding

Written by `python -m tests.benchmarks.embedding_domain`; the protocol is in its docstring. Per cent of spectra over a
99 % limit under the same and under the new condition, and the area under the curve that tells them apart:

{chr(10).join(lines)}
""",
        )


if __name__ == "__main__":
    main()
