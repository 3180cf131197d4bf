"""The section of docs/benchmarks.md that `any_axis` writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .page import table

Found = dict[str, list[float]]  # RMSEP of each cell, by the row's name
HEAD = """## One network for every axis

Written by `python -m tests.benchmarks.any_axis`; the protocol is in its docstring. A transformer whose tokens are
patches of log wavelength reads every instrument's own axis. It was pretrained without labels on other databases than
those it is judged on, and frozen. **It does not pay**, and Tamis does not have it:
[decision 32](decisions/0032-no-transformer-for-every-axis.md).
"""


def page(kept: dict[str, Any]) -> str:
    design = kept["design"]
    designs = [
        [name, *(f"{of[key]:.2f}" for key in ("few", "few, untrained", "axis", "axis, untrained", "all"))]
        for name, of in kept["designs"].items()
    ]
    heads = ["design", "30 labels", "untrained", "another axis", "untrained", "all cells"]
    words = f"""### Designs, on corn

Geometric means of RMSEP over that of PLS: 30 labels (four responses, three draws); another axis (two responses, two
instruments; over PLS with labels on that axis). `untrained` is the same network without pretraining. Chosen:
`{design}`.
"""
    parts = [HEAD.strip(), words, table(heads, designs), _axis_part(kept["axis"]), _causes_part(kept["causes"])]
    parts.append(_few_part(kept["few"]))
    return "\n\n".join(part.strip() for part in parts)


def _axis_part(axis: dict[str, dict[str, Found]]) -> str:
    models = dict.fromkeys(("network", "untrained", "patches"), "another axis")
    models |= dict.fromkeys(("PLS", "committee"), "interpolated")
    lines, ratios, own = [], {}, {}
    for name, instruments in axis.items():
        for instrument, found in instruments.items():
            line = [f"{name}, {instrument}"]
            for model, how in models.items():
                native = found[f"{model}, native"]
                some = [mean_ratio(found[f"{model}, {what}"], native) for what in (how, "re-centred")]
                line.append(f"{np.mean(native):.3g}: {some[0]:.2f}, {some[1]:.2f}")
                if not name.startswith("corn"):
                    ratios.setdefault(model, []).append(some)
                    own.setdefault(model, []).append(np.mean(found[f"{model}, {how}"]) / np.mean(found["PLS, native"]))
            lines.append(line)
    means = {model: np.exp(np.mean(np.log(some), axis=0)) for model, some in ratios.items()}
    lines.append(["all but corn, ratios", *(f"{mean[0]:.2f}, {mean[1]:.2f}" for mean in means.values())])
    lines.append(["over PLS with labels there", *(f"{np.exp(np.mean(np.log(some))):.2f}" for some in own.values())])
    heads = ["", *(f"{model}, {how}" if how == "interpolated" else model for model, how in models.items())]
    return f"""### Labels on one axis, predictions on another, without pairs

100 labels. In each cell: RMSEP with labels on the axis of the test; then RMSEP with labels on the other axis as a ratio
to it, as it is, and re-centred on unlabeled spectra. `patches` are the coefficients that tokens are made of, without a
network.

{table(heads, lines)}

Goal: the network at most 1.05: {means["network"][0]:.2f}, {_verdict(means["network"][0] <= 1.05)}.
"""


def _causes_part(causes: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        [
            f"{name}, {what}",
            *(f"{value:.3g}" for value in figures),
            f"{figures[0] / figures[2]:.2f}, {figures[1] / figures[2]:.2f}",
        ]
        for name, found in causes.items()
        for what, figures in found.items()
    ]
    return f"""### What is in the way

Patches without a network on the simulated handheld, by what it adds to the bands; one draw of 100 labels, looked at
after the figures above to explain them.

{table(["", "as it is", "re-centred", "labels there", "ratios"], lines)}
"""


def _few_part(few_labels_found: dict[str, Found]) -> str:
    single = ["PLS", "network", "untrained", "patches", "committee"]
    rows = [*single, *(f"committee and {row}" for row in ("network", "untrained", "patches"))]
    lines, cells = [], {row: [] for row in rows}
    for name, found in few_labels_found.items():
        lines.append([name, *(f"{np.mean(found[row]):.3g}" for row in rows)])
        if not name.startswith("corn"):
            for row in rows:
                cells[row] += found[row]
    with_it, alone, control = (cells[row] for row in ("committee and network", "committee", "committee and untrained"))
    won = float(np.mean(np.array(with_it) < np.array(alone)))
    figures = [
        ("the committee with the network, over the committee", mean_ratio(with_it, alone), 0.95),
        ("the same, over the committee with the untrained network", mean_ratio(with_it, control), 0.95),
        (
            "the head on the network, over the head on the untrained one",
            mean_ratio(cells["network"], cells["untrained"]),
            1,
        ),
        ("the head on the network, over PLS", mean_ratio(cells["network"], cells["PLS"]), 1),
        ("the head on the patches without a network, over PLS", mean_ratio(cells["patches"], cells["PLS"]), 1),
        (
            "the committee with the patches, over the committee",
            mean_ratio(cells["committee and patches"], cells["committee"]),
            0.95,
        ),
    ]
    said = [f"- {what}: {value:.3f}, goal {goal:g}: {_verdict(value <= goal)}" for what, value, goal in figures]
    return f"""### 30 labels

RMSEP, means of three draws of labels, each with its own seed of pretraining.

{table(["", *rows], lines)}

Geometric means over {len(alone)} cells, without corn:

{chr(10).join(said)}
- lower with the network than without in {won:.0%} of cells, goal 70 %: {_verdict(won >= 0.7)}
"""


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "**missed**"


def mean_ratio(cells: list[float], over: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.array(cells) / np.array(over)))))
