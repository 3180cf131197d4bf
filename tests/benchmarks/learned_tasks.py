"""Few labels, again: an encoder trained on regressions of other databases, and one that decodes by Beer-Lambert.

    python -m tests.benchmarks.learned_tasks --designs      (on corn alone: which design)
    python -m tests.benchmarks.learned_tasks --design NAME  (all others, once; writes docs/benchmarks.md)

`any_axis` found that contrast and masked reconstruction drop the small differences that laboratory values depend on
(decision 32), and what a better objective would have to keep. This is that objective.

Protocol, written down before the first figure was seen.

Responses, folds, splits, draws, head, PLS and committee are those of `any_axis`: 30 labels, three draws, everything
chosen on the labeled rows. Networks are trained with seed 0: two cores had no time for more. Each network starts from
the patches' coefficients (slopes), which are 0.89 of PLS's error there without a network, and may change them; 600
steps of four tasks. A task: 30 rows of one database with a value, a ridge regression on their embeddings, and the
error of 32 more rows, whose gradient trains the network. Half of the tasks of recorded databases are seen through a
random simulated sensor with scatter and noise.

Designs: weights for the patches' coefficients by their place, without a transformer (`weights`); a transformer upon
them (`tasks`), both with laboratory values of other databases, made-up values of recorded spectra (random means of
whitened principal components) and shares of simulated mixtures (Beer-Lambert or linear, with scatter and sensor),
2:1:1; the transformer with laboratory values alone (`values`) and with simulated mixtures alone (`mixtures`). And a
physics decoder without tasks (`physics`, 1,500 steps of 64 spectra): concentrations of 64 absorbers common to all
databases, path length and baseline; the head reads the concentrations.

They are compared on corn alone (fold A, seed 0). The design whose committee has the least geometric mean of RMSEP over
that of the committee without it is chosen, and no other is tried on the other databases. Goals, as in `any_axis`: the
committee with the network at most .95 of the committee without, and of the committee with the untrained network, and
lower than the former in 70 % of cells. Corn counts in none of the means.

Laboratory values of other databases make this training supervised: it is no contrast on a stream. The design that
needs none is `mixtures`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch

from .any_axis import FEW, RESPONSES, PatchesAlone, committee, few_labels, head, on_axis, pls, rmse, task
from .any_axis_page import Found, mean_ratio
from .page import ROOT, put, table
from .task_networks import DESIGNS, pretrained, untrained

DRAWS, SEED = 3, 0  # of the labels; of the training
ROWS = ("PLS", "network", "untrained", "patches", "committee", "committee and network", "committee and untrained",
        "committee and patches")  # fmt: skip


def few(name: str, design: str) -> Found:
    """RMSEP of each row, of each draw."""
    given = task(name)
    found: Found = {row: [] for row in ROWS}
    for draw in range(DRAWS):
        rows = few_labels(given.fit, FEW, draw)
        X, y = given.spectra[rows], given.y[rows]
        Q, measured = given.spectra[given.test], given.y[given.test]
        found["PLS"].append(rmse(pls(X, y, given.axis, draw)(Q), measured))
        found["committee"].append(rmse(committee(X, y, draw).predict(Q), measured))
        networks = {
            "network": pretrained(given.fold, design, SEED),
            "untrained": untrained(design, SEED),
            "patches": PatchesAlone(layers=0),
        }
        for row, network in networks.items():
            encoder = on_axis(network, X, given.axis)
            found[row].append(rmse(head(encoder.embed(X), y, draw)(encoder.embed(Q)), measured))
            with_it = committee(X, y, draw, encoder)
            found[f"committee and {row}"].append(rmse(with_it.predict(Q), measured))
    return found


def geometric(cells: list[float]) -> float:
    return float(np.exp(np.mean(np.log(cells))))


def on_corn(design: str) -> dict[str, float]:
    found = [few(name, design) for name in RESPONSES if name.startswith("corn")]

    def over(row: str, other: str) -> float:
        return geometric(np.concatenate([np.divide(one[row], one[other]) for one in found]).tolist())

    return {
        "the head over PLS": over("network", "PLS"),
        "untrained over PLS": over("untrained", "PLS"),
        "the head over the patches": over("network", "patches"),
        "committee with it over without": over("committee and network", "committee"),
        "with it over with the untrained one": over("committee and network", "committee and untrained"),
    }


def page(kept: dict[str, Any]) -> str:
    design, few_ = kept["design"], kept["few"]
    designs = table(
        ["design", *next(iter(kept["designs"].values()))],
        [[name, *(f"{value:.3f}" for value in of.values())] for name, of in kept["designs"].items()],
    )
    cells = table(["", *ROWS], [[name, *(float(np.mean(found[row])) for row in ROWS)] for name, found in few_.items()])
    others = [found for name, found in few_.items() if not name.startswith("corn")]

    def over(row: str, other: str) -> float:
        return geometric([mean_ratio(found[row], found[other]) for found in others])

    pairs = [
        (a, b) for found in others for a, b in zip(found["committee and network"], found["committee"], strict=True)
    ]
    lower = float(np.mean([a < b for a, b in pairs]))

    def line(words: str, value: float, goal: float) -> str:
        return f"- {words}: {value:.3f}, goal {goal}: {'reached' if value <= goal else '**missed**'}"

    return "\n".join([
        "## Few labels: an encoder trained on regressions of other databases",
        "",
        "Written by `python -m tests.benchmarks.learned_tasks`; protocol and designs are in its docstring.",
        "**None pays**, and Tamis has none: [decision 32](decisions/0032-no-transformer-for-every-axis.md).",
        "",
        "Geometric means of RMSEP with 30 labels, on corn (four responses, three draws), where the design was chosen:",
        f"`{design}`.",
        "",
        designs,
        "",
        "RMSEP, means of three draws of labels:",
        "",
        cells,
        "",
        f"Geometric means over {len(others)} responses, without corn:",
        "",
        line("the committee with the network, over the committee", over("committee and network", "committee"), 0.95),
        line("the same, over the committee with the untrained network",
             over("committee and network", "committee and untrained"), 0.95),
        line("the head on the network, over the head on the untrained one", over("network", "untrained"), 1.0),
        line("the head on the network, over PLS", over("network", "PLS"), 1.0),
        line("the head on the patches without a network, over PLS", over("patches", "PLS"), 1.0),
        f"- lower with the network than without in {lower:.0%} of cells, goal 70 %: "
        + ("reached" if lower >= 0.7 else "**missed**"),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--designs", nargs="*", metavar="NAME", help="compare these on corn, or all")
    parser.add_argument("--design", help="measure this one everywhere, and write the page")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = ROOT / "build" / "learned_tasks" / "figures.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    def kept() -> dict[str, Any]:  # two processes may share it, one a design
        return json.loads(path.read_text()) if path.exists() else {"designs": {}, "few": {}}

    for design in [] if asked.designs is None else asked.designs or DESIGNS:
        if design not in kept()["designs"]:
            found = on_corn(design)
            print(design, found, flush=True)
            now = kept()
            now["designs"][design] = found
            path.write_text(json.dumps(now, indent=1))
    if asked.design:
        now = kept() | {"design": asked.design}
        for name in RESPONSES:
            if name not in now["few"]:
                now["few"][name] = few(name, asked.design)
                print(name, {row: round(float(np.mean(some)), 4) for row, some in now["few"][name].items()}, flush=True)
                path.write_text(json.dumps(now, indent=1))
        put("learned tasks", page(now))


if __name__ == "__main__":
    main()
