"""What an encoder adds when the condition stays the same: the committee with it, without it, and with an untrained one.

    python -m tests.benchmarks.same_condition [--draws 10] [--seeds 3]

Protocol, written down before the first figure was seen: the responses of the published table; the encoder is pretrained
on the file's own spectra without their values, except the test rows; 30 and 100 labels, 10 draws, 3 seeds of
pretraining (a figure each); test rows as in the published table. A cell is a response, a number of labels, a draw and a
seed.
"""

from __future__ import annotations

import argparse

import numpy as np

from tamis.models.committee import CommitteeRegressor
from tamis.models.evaluation import few_labels, split_rows
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.files.many import read_table
from tamis.streamer.studies.contenders import Context, encoder_of

from .page import ROOT, put
from .published_table import RESPONSES

DATA = ROOT.parent / "shared" / "data"


def cells(name: str, draws: int, seeds: int) -> list[tuple[int, float, float, float]]:
    """(labels, RMSEP without an encoder, with the pretrained one, with the random one) for each draw and seed."""
    file, target, where, split = RESPONSES[name]
    table = read_table(DATA / file, where=where)
    y = table.columns[target]
    rows = np.flatnonzero(np.isfinite(y) & np.isfinite(table.spectra).all(axis=1))
    fit_rows, test = split_rows(len(rows), None if split is None else table.columns[split][rows])
    fit_rows, test = rows[fit_rows], rows[test]
    pool = np.setdiff1d(np.flatnonzero(np.isfinite(table.spectra).all(axis=1)), test)
    n = len(pool)
    spectra = table.spectra[pool].astype(np.float32)
    unlabeled = Unlabeled(spectra, np.arange(n), np.zeros(n, np.int64), np.ones(n, bool))
    context = Context((unlabeled, table.axis))
    found = []
    for labels in (30, 100):
        if labels >= len(fit_rows):
            continue
        for draw in range(draws):
            drawn = few_labels(fit_rows, labels, draw)

            def rmsep(encoder, drawn=drawn, draw=draw):
                made = CommitteeRegressor(encoder=encoder, random_state=draw).fit(table.spectra[drawn], y[drawn])
                return float(np.sqrt(np.mean((made.predict(table.spectra[test]) - y[test]) ** 2)))

            without = rmsep(None)
            for seed in range(seeds):
                trained, random = (
                    encoder_of(context.unlabeled, seed, pretrained=pretrained) for pretrained in (True, False)
                )
                found.append((labels, without, rmsep(trained), rmsep(random)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    lines = [
        "| RMSEP | labels | committee | with the encoder | with a random encoder | encoder better in |",
        "|---|---|---|---|---|---|",
    ]
    every = []
    for name in RESPONSES:
        found = cells(name, asked.draws, asked.seeds)
        every += found
        for labels in sorted({cell[0] for cell in found}):
            some = np.array([cell[1:] for cell in found if cell[0] == labels])
            shown = [f"{mean:.4g}" for mean in some.mean(axis=0)]
            lines.append(f"| {name} | {labels} | {' | '.join(shown)} | {np.mean(some[:, 1] < some[:, 0]):.0%} |")
            print(lines[-1], flush=True)
    ratios = np.array([cell[1:] for cell in every])
    means = np.exp(np.mean(np.log(ratios[:, 1:] / ratios[:, :1]), axis=0))
    won = np.mean(ratios[:, 1:] < ratios[:, :1], axis=0)
    put(
        "same condition",
        f"""## The same condition: what an encoder adds to the committee

Written by `python -m tests.benchmarks.same_condition`; the protocol is in its docstring. The encoder is pretrained
without labels on the file's own spectra, except the test rows; {asked.draws} draws of labels, {asked.seeds} seeds of
pretraining.

{chr(10).join(lines)}

Over all cells, RMSEP with the encoder is {means[0]:.3f} of RMSEP without it (geometric mean), lower in {won[0]:.0%};
with a random encoder {means[1]:.3f}, lower in {won[1]:.0%}.
""",
    )


if __name__ == "__main__":
    main()
