"""How often new spectra are called untrusted, and how often 90 % intervals hold: before and after honest limits.

    python -m tests.benchmarks.honest_limits [--kinds plsr,committee] [--draws 2] [--sets corn,soil]

Protocol: a model is fitted on calibration rows of one condition, 30, 100 or all of them. `same` are other rows of that
condition, `new` those of another one: other samples on another instrument, later ones, other grinds, kinds or studies.
`before` are the limits and intervals of version 0.1: T2 and Q limits from the fitted rows themselves, for the committee
in the principal components of raw spectra; intervals by the conformal quantile of the unseen residuals alone, the same
width everywhere (0.1 sent none). The form of the intervals was chosen on the sets marked *, with PLS alone; that of the
limits on calibration rows alone, see docs/decisions/0022-honest-limits.md. The other rows are the test.

A network's T2 and Q are those of its inputs, which do not depend on its weights: the CNN's stand for SpectraTr's. For
its shares it is fitted for one epoch; its intervals are judged with --network-epochs on NETWORK_SETS alone.
`spectratr on encoder` is the committee with a SpectraTr encoder that is not pretrained. Each result is kept in
build/honest_limits.json at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tamis.models.applicability_domain import ApplicabilityDomain
from tamis.models.axis import Axis
from tamis.models.class_thresholds import conformal_limits
from tamis.models.encoder import Encoder
from tamis.models.model import Model, estimator_class
from tamis.models.preprocess import Pipeline

from .page import ROOT, put

DATA = ROOT.parent / "shared" / "data"
KEPT = ROOT / "build" / "honest_limits.json"
LABELS = (30, 100, None)
TREATMENT = "snv, savgol 15 2 1"
NETWORK_SETS = ("corn, moisture, mp5*", "tablets, assay, 2")
Masks = tuple[np.ndarray, np.ndarray, np.ndarray]  # calibration, same condition, new condition
Rows = Callable[[dict[str, np.ndarray]], Masks]


def samples(columns: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) names: LMP-325_4_10mm is the fourth scan of forage LMP-325."""
    return np.array([str(name).split("_")[0] if "LMP" in str(name) else str(name) for name in columns["sample_id"]])


def thirds(names: np.ndarray) -> np.ndarray:
    """(n,) bool: every third sample is not calibrated on."""
    return np.unique(names, return_inverse=True)[1] % 3 == 2


def by(column: str, one: str, other: str) -> Rows:
    def rows(columns: dict[str, np.ndarray]) -> Masks:
        apart = thirds(samples(columns))
        here, there = columns[column] == one, columns[column] == other
        return here & ~apart, here & apart, there & apart

    return rows


def later(columns: dict[str, np.ndarray]) -> Masks:
    i = np.arange(len(columns["sample_id"]))
    early = i < 0.4 * len(i)
    return early & (i % 3 != 2), early & (i % 3 == 2), ~early


def but(column: str, other: str) -> Rows:
    def rows(columns: dict[str, np.ndarray]) -> Masks:
        there, apart = columns[column] == other, np.arange(len(columns[column])) % 3 == 2
        return ~there & ~apart, ~there & apart, there

    return rows


def alike(columns: dict[str, np.ndarray]) -> Masks:
    apart = np.random.default_rng(5).permutation(len(columns["sample_id"])) % 3 == 2
    return ~apart, apart, apart & ~apart


SETS: dict[str, tuple[str, str, Rows]] = {
    "corn, moisture, mp5*": ("corn_3instruments", "moisture", by("instrument", "m5", "mp5")),
    "corn, oil, mp6*": ("corn_3instruments", "oil", by("instrument", "m5", "mp6")),
    "corn, protein, m5*": ("corn_3instruments", "protein", by("instrument", "mp5", "m5")),
    "diesel, cn, later*": ("diesel_swri", "cn", later),
    "diesel, viscosity, later*": ("diesel_swri", "visc", later),
    "escitalopram, type 4*": ("tablets_escitalopram", "active_ww", but("tablet_type", "type4")),
    "forages, dry matter, legumes*": ("forages2", "dm", but("forage_type", "Legume forages")),
    "forages, NDF, trees*": ("forages2", "ndf", but("forage_type", "Forage trees")),
    "tablets, assay, 2": ("tablets_idrc2002_2instruments", "assay", by("instrument", "1", "2")),
    "tablets, assay, 1": ("tablets_idrc2002_2instruments", "assay", by("instrument", "2", "1")),
    "forage, protein, 1 mm": ("forage_ibf_neospectra", "crude_protein_pct", by("grind", "10mm", "1mm")),
    "forage, ADF, 1 mm": ("forage_ibf_neospectra", "adf_pct", by("grind", "10mm", "1mm")),
    "cassava, dry matter, study": ("cassava_ikeogu2017", "dmc_oven", but("study", "C16Mval")),
    "cassava, carotenoids, study": ("cassava_ikeogu2017", "tcc", but("study", "C16Mval")),
    "diesel, flash point, later": ("diesel_swri", "flash", later),
    "soil, organic carbon": ("soil_wallonia_nirsoil", "organic_c", alike),
    "soil, CEC": ("soil_wallonia_nirsoil", "cec", alike),
    "meat, fat": ("tecator_meat", "fat", alike),
}
SLOW = ("spectratr on encoder", "cnn")  # one draw is enough
KINDS = ("plsr", "local-pls", "committee", "spectratr on encoder", "cnn")


def spectra_of(name: str) -> tuple[np.ndarray, Axis, np.ndarray, np.ndarray, Masks]:
    """Spectra (n, bands), their axis, values (n,), samples (n,) and which rows are what."""
    file, target, rows_of = SETS[name]
    table = pq.read_table(DATA / f"{file}.parquet")
    about = table.schema.metadata
    columns = {key: np.array(table[key].to_pylist()) for key in table.column_names if key != "spectrum"}
    order = np.argsort(json.loads(about[b"wavelengths"]))
    axis = Axis(np.array(json.loads(about[b"wavelengths"]), float)[order], about[b"wavelength_unit"].decode())
    spectra, values = np.array(table["spectrum"].to_pylist())[:, order], columns[target].astype(float)
    there = np.isfinite(values) & np.isfinite(spectra).all(axis=1)
    calibration, same, new = (rows & there for rows in rows_of(columns))
    return spectra, axis, values, samples(columns), (calibration, same, new)


def fitted(
    kind: str, name: str, spectra: np.ndarray, axis: Axis, values: np.ndarray, groups: np.ndarray, epochs: int
) -> Model:
    treatment = "centre" if name.startswith("forages") else TREATMENT  # these are treated as published
    if kind == "cnn":
        estimator = estimator_class(kind)(epochs=epochs, device="cpu")
    elif kind == "spectratr on encoder":
        estimator = estimator_class("committee")(encoder=Encoder("spectratr").learn(spectra, axis))
    else:
        estimator = estimator_class(kind)()
    pipeline = Pipeline() if estimator.kind == "committee" else Pipeline.parse(treatment)
    return Model.fit(spectra, axis, values, ["y"], pipeline=pipeline, estimator=estimator, groups=groups)


def measured(kind: str, name: str, labels: int | None, draw: int, epochs: int) -> dict[str, Any] | None:
    """Shares and coverages of one model; None where there are not more calibration rows than labels."""
    spectra, axis, values, group, (calibration, same, new) = spectra_of(name)
    rows = np.flatnonzero(calibration)
    if labels is not None:
        if labels >= len(rows):
            return None
        rows = np.random.default_rng(draw).permutation(rows)[:labels]
    model = fitted(kind, name, spectra[rows], axis, values[rows], group[rows], epochs)
    before = domain_before(model, spectra[rows], axis)
    assert model.interval is not None
    estimator, found = model.estimator, dict[str, Any](labels=len(rows))
    treated = model.pipeline.transform(spectra[rows], axis)
    unseen = estimator.unseen(treated, values[rows, None], group[rows], np.arange(len(rows)))[:, 0] - values[rows]
    flat = np.sort(np.abs(unseen[np.isfinite(unseen)]))
    half_before = flat[min(int(np.ceil(0.9 * (len(flat) + 1))), len(flat)) - 1]
    for which, picked in (("same", same), ("new", new)):
        if not picked.any():
            continue
        result, true = model.predict(spectra[picked], axis), values[picked]
        assert result.half is not None
        error = np.abs(result.values[:, 0] - true)
        (_, t2), (_, q) = model.limits["t2"], model.limits["q"]
        then = before.t2_q(model.pipeline.transform(spectra[picked], axis)) if before.is_raw else (result.t2, result.q)
        found[which] = {
            "before": float(np.mean((then[0] > before.t2) | (then[1] > before.q))),
            "after": float(np.mean((result.t2 > t2) | (result.q > q))),
            "held before": float(np.mean(error <= half_before)),
            "held after": float(np.mean(error <= result.half[:, 0])),
            "width": float(np.median(result.half) / max(np.quantile(error, 0.9), 1e-12)),
        }
    return found


class Before:
    """Limits of version 0.1."""

    def __init__(self, domain: ApplicabilityDomain, *, is_raw: bool) -> None:
        self.t2_q, self.is_raw, self.t2, self.q = domain.t2_q, is_raw, domain.t2_limits[1], domain.q_limits[1]


def domain_before(model: Model, spectra: np.ndarray, axis: Axis) -> Before:
    treated, domain = model.pipeline.transform(spectra, axis), model.estimator.domain_
    if model.kind == "committee":
        return Before(ApplicabilityDomain.principal(treated), is_raw=True)
    return Before(ApplicabilityDomain.of(treated, domain.mean, domain.rotations, domain.loadings), is_raw=False)


def cells(kinds: list[str], draws: int, epochs: int, sets: tuple[str, ...]) -> Iterator[tuple[str, str, Any, dict]]:
    store = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for kind in kinds:
        is_network = kind == "cnn"
        for name in SETS:
            if not name.startswith(sets):
                continue
            trains = is_network and name in NETWORK_SETS
            for labels in LABELS:
                for draw in range(draws if labels and kind not in SLOW else 1):
                    key = f"{kind} | {name} | {labels} | {draw} | {epochs if trains else ''}"
                    if key not in store:
                        store[key] = measured(kind, name, labels, draw, epochs if trains else 1)
                        KEPT.parent.mkdir(exist_ok=True)
                        KEPT.write_text(json.dumps(store))
                        print(key, store[key], flush=True)
                    if store[key] is not None:
                        yield kind, name, labels, store[key] | {"trained": trains or not is_network}


def percent(values: list[float], digits: int = 0) -> str:
    return f"{100 * float(np.mean(values)):.{digits}f}" if values else "-"


def by_set(found: list, kind: str, labels: Any, which: str, figure: str, aside: bool | None = None) -> dict[str, float]:
    """The mean over draws, of each set; `aside`: only of the sets that nothing was chosen on."""
    of_sets: dict[str, list[float]] = {}
    for of, name, n, cell in found:
        wanted = aside is None or aside != name.endswith("*")
        if (
            (of, n) == (kind, labels)
            and which in cell
            and wanted
            and (cell["trained"] or figure in ("before", "after"))
        ):
            of_sets.setdefault(name, []).append(cell[which][figure])
    return {name: float(np.mean(values)) for name, values in of_sets.items()}


def tables(found: list) -> str:
    kinds = list(dict.fromkeys(kind for kind, *_ in found))
    lines = ["| model | labels | same condition: before | after | new condition: before | after |", "|---" * 6 + "|"]
    for kind in kinds:
        for n in LABELS:
            row = [by_set(found, kind, n, which, time) for which in ("same", "new") for time in ("before", "after")]
            row = [percent(list(one.values()), 1 if i < 2 else 0) for i, one in enumerate(row)]
            lines.append(f"| {kind} | {n or 'all'} | {' | '.join(row)} |")
    head = "same: before | after | new, sets marked *: before | after | new, other sets: before | after"
    lines += ["", f"| model | labels | {head} | sets below 85 % | width |", "|---" * 10 + "|"]
    for kind in kinds:
        for n in LABELS:
            groups = [("same", None), ("new", False), ("new", True)]
            row = [by_set(found, kind, n, which, f"held {time}", aside) for which, aside in groups
                   for time in ("before", "after")]  # fmt: skip
            if not row[0]:
                continue
            below = [f"{name} {100 * share:.0f}" for name, share in {**row[3], **row[5]}.items() if share < 0.85]
            width = np.exp(np.mean(np.log(list(by_set(found, kind, n, "new", "width").values()))))
            held = " | ".join(percent(list(one.values())) for one in row)
            lines.append(f"| {kind} | {n or 'all'} | {held} | {', '.join(below) or 'none'} | {width:.2f} |")
    return "\n".join(lines)


def few_of_a_class(kept: tuple[int, ...] = (6, 10, 15)) -> str:
    """Plastics, of which one class at a time has few spectra: are the sets of the others still of one class?"""
    table = pq.read_table(DATA / "plastics_scanner_nir.parquet")
    names, items = (np.array([str(one) for one in table[key].to_pylist()]) for key in ("label", "item"))
    spectra = np.array(table["spectrum"].to_pylist())
    common = [name for name, n in zip(*np.unique(names, return_counts=True), strict=True) if n >= 100]
    usable = np.isin(names, common) & np.isfinite(spectra).all(axis=1)
    spectra, names, items = spectra[usable], names[usable], items[usable]
    treated = Pipeline.parse("snv, savgol 15 2 1").fit(spectra, Axis(np.linspace(1014, 1749, spectra.shape[1]), "nm"))
    train = ~thirds(items)
    lines = [
        "| spectra of the class | certain: before | after | own class in its sets: before | after |",
        "|---" * 5 + "|",
    ]
    for n in kept:
        shares = []
        for name in common:
            own = np.random.default_rng(n).permutation(np.flatnonzero(train & (names == name)))[:n]
            rows = np.concatenate([own, np.flatnonzero(train & (names != name))])
            made = estimator_class("pls-da")(folds=5).fit(treated[rows], names[rows], items[rows])
            after = conformal_limits(made.validation_, 0.95)
            before = np.where(np.bincount(made.validation_.codes) < 19, 0.0, after)
            chance, rare = made.predict_proba(treated[~train]), names[~train] == name
            k = int(np.flatnonzero(made.classes_ == name)[0])
            sets = [chance >= limits for limits in (before, after)]
            shares.append([np.mean(one.sum(axis=1) == 1) for one in sets] + [np.mean(one[rare, k]) for one in sets])
        lines.append(f"| {n} | {' | '.join(percent([share]) for share in np.mean(shares, axis=0))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--sets", default="", help="beginnings of names, separated by commas; all if not given")
    parser.add_argument("--network-epochs", type=int, default=20)
    asked = parser.parse_args()
    sets = tuple(asked.sets.split(","))
    page = tables(list(cells(asked.kinds.split(","), asked.draws, asked.network_epochs, sets)))
    print(page)
    if asked.sets or asked.kinds != ",".join(KINDS):
        return
    put(
        "honest-limits",
        f"""## Honest limits

Written by `python -m tests.benchmarks.honest_limits`; the protocol is in its docstring. Means
over sets, of {asked.draws} draws of labels each (the last two models: 1). Per cent of spectra beyond the 99 % limits
of T2 or Q:

{page.split(chr(10) * 2)[0]}

Per cent of the laboratory's values within 90 % intervals. `before`: intervals of one width, from the same residuals.
`width`: median over the 90 % quantile of the true errors in the new condition; 1 is as wide as needed. Networks on
{len(NETWORK_SETS)} sets, {asked.network_epochs} epochs:

{page.split(chr(10) * 2)[1]}

Per cent of plastics (PLS-DA, each class in turn with few spectra) whose conformal set at 95 % holds exactly one class:

{few_of_a_class()}
""",
    )


if __name__ == "__main__":
    main()
