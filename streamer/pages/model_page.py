"""The page of a fitted model: what a chemometrician looks at before trusting it. Every point tells its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import BadBundle
from ...models.applicability_domain import hotelling_limits
from ...models.class_scores import UNKNOWN, ClassScores
from ...models.estimator import UNSEEN_FOLDS
from ...models.evaluation import Scores
from ...models.model import Model
from .charts import Listing, Section, fixed, number, page_of
from .fitted import Fitted
from .plots import Plot, Trace, coloured, curve, known, level, logarithmic, note_at, points, scripts

MOST_SPECTRA = 40  # lines in a chart
MOST_BANDS = 700  # points of a line; of a spectrum, of which there are many, MOST_OF_MANY
MOST_OF_MANY = 400
MOST_LOADINGS = 6
NAMED = 5  # rows with a word beside their point
MOST_WRONG = 30  # rows in the table of wrong classes
WITHOUT = {
    "local-pls": "Local PLS fits a PLS of its own for each spectrum that it predicts",
    "committee": "A committee is a weighted mean of models under several pre-treatments",
}
NETWORK = "A network has no latent variables"


def model_page(title: str, model: Model, columns: Mapping[str, np.ndarray] | None = None) -> str:
    """The whole HTML page of a model with its calibration; every text is escaped.

    Args:
        columns: other columns of the calibration, (n,) each, to colour scores by.

    Raises BadBundle for a model without its calibration, or one of fewer than 3 rows.
    """
    if model.calibration is None or len(np.unique(model.calibration.group)) < 3:
        raise BadBundle("its bundle keeps no calibration, or one of fewer than 3 samples: there is nothing to draw")
    fitted = Fitted(model, model.calibration, columns or {})
    what = ", ".join(model.targets) if not model.class_of else f"{model.class_of} ({len(model.classes)} classes)"
    parts = (f"{model.kind} for {what}", str(model.training.get("source", "")), str(model.grid), fitted.treatment)
    about = f"{'; '.join(filter(None, parts))}."
    if len(fitted.rows) < fitted.of:
        about += f" {len(fitted.rows):,} of {fitted.of:,} spectra are drawn, and figures are of these."
    sections = [
        Section("Classes" if model.class_of else "Errors", *_errors(fitted)),
        *_instruments(model),
        Section("Spectra", figures=_spectra(fitted)),
        *_latent(fitted),
        Section("Rows far away", figures=[_distances(fitted), *_leverage(fitted)]),
    ]
    return page_of(
        title,
        sections,
        subtitle=about,
        figures=_figures(fitted),
        template="study.html.j2",
        library=scripts(),
        findings=_findings(fitted),
    )


def _figures(fitted: Fitted) -> dict[str, str]:
    model, found = fitted.model, {}
    if model.class_of:
        figures = model.estimator.validation_.figures()
        found["balanced accuracy, out of fold"] = fixed(figures["balanced_accuracy"], 3)
        found["unknown, out of fold"] = f"{figures['unknown']:.1%}"
    for t, target in enumerate(model.targets[:3] if not model.class_of else ()):
        there = np.isfinite(fitted.unseen[:, t])
        if there.sum() > 2:
            scores = Scores.of(fitted.Y[there, t], fitted.unseen[there, t])
            rmse = number(float(f"{scores.rmsep:.3g}"))
            found[f"{target}: RMSE out of fold"] = f"{rmse} {model.units.get(target, '')}".rstrip()
            found[f"{target}: R², bias"] = f"{fixed(scores.r2, 3)}, {number(float(f'{scores.bias:.2g}'))}"
    if fitted.latent is not None:
        found["latent variables"] = str(fitted.latent.scores.shape[1])
    found["spectra"] = f"{fitted.of:,}"
    if (samples := len(np.unique(fitted.groups))) < len(fitted.rows):
        found["samples"] = f"{samples:,}"
    return found


def _findings(fitted: Fitted) -> list[str]:
    found = []
    if worst := fitted.worst:
        found.append(
            f"{len(worst)} of {len(fitted.rows):,} spectra lie beyond the 99 % limit of T² or Q, by a model that had "
            f"not seen them: {fitted.named(worst)}"
        )
    if (residuals := fitted.residuals) is not None:
        for t, target in enumerate(fitted.model.targets):
            rows = [row for row in np.argsort(-np.abs(residuals.studentised[:, t])).tolist() if residuals.far[row, t]]
            if rows:
                found.append(f"{target}: the laboratory value does not suit the spectrum: {fitted.named(rows)}")
        if pulling := [row for row in np.argsort(-residuals.leverage).tolist() if residuals.pulling[row]]:
            found.append(f"The model depends much on single rows: {fitted.named(pulling)}")
    if "member" in fitted.model.training:
        found.append("The trainer made this version from later laboratory values: those out of fold are from before")
    return found


def _errors(fitted: Fitted) -> tuple[list[Listing], list[Plot]]:
    if fitted.model.class_of:
        return _classes(fitted), []
    model, views, there = fitted.model, {}, np.isfinite(fitted.unseen).all(axis=1)
    if not there.any():
        return [], []
    layout: dict[str, Any] = {"showlegend": False}
    for t, target in enumerate(model.targets):
        measured, predicted = fitted.Y[there, t], fitted.unseen[there, t]
        ends = np.array([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
        names = [name for name, is_there in zip(fitted.names, np.asarray(there), strict=True) if is_there]
        hover = "measured %{x:.4g}<br>predicted %{y:.4g}"
        if fitted.half is not None:
            hover += " ± %{error_y.array:.2g}"
        dots = points(measured, predicted, names, target, hover, color="--c0")
        dots["marker"]["symbol"] = np.where(fitted.far[there], "diamond", "circle").tolist()
        if fitted.half is not None:
            dots["error_y"] = {"type": "data", "array": fitted.half[there, t], "width": 0, "thickness": 1,
                               "color": "--out"}  # fmt: skip
        same = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip", "line": {
            "color": "--ink", "width": 1, "dash": "dash"}}  # fmt: skip
        views[target] = [same, dots]
    note = "Each row is predicted by a model that has not seen its sample"
    note += " (a network: only rows held out from its training)" if model.kind in ("cnn", "spectratr") else ""
    note += ", with its 90 % interval. Diamonds lie beyond the limits of T² or Q."
    if not hasattr(fitted.estimator, "members_") and model.kind not in ("cnn", "spectratr"):
        note += f" By up to {UNSEEN_FOLDS} folds; tamis fit compares versions by fewer, and so names another error."
    found = [Plot("Predicted against measured", views, "measured", "predicted", note, layout=layout, height=420)]
    return [], [*found, *_error_curve(fitted)]


def _error_curve(fitted: Fitted) -> list[Plot]:
    """RMSEC and RMSECV with each number of latent variables."""
    if fitted.errors is None or fitted.latent is None:
        return []
    calibrated, validated = fitted.errors
    chosen, views = fitted.latent.scores.shape[1], {}
    x = np.arange(1, len(validated) + 1)
    for t, target in enumerate(fitted.model.targets):
        hover = "%{x} latent variables: %{y:.4g}"
        views[target] = [
            curve(validated[:, t], "RMSECV", hover, x=x, mode="lines+markers", line={"color": "--c0"}),
            curve(calibrated[:, t], "RMSEC", hover, x=x, mode="lines+markers", line={"color": "--c7", "dash": "dot"}),
        ]
    layout = {"shapes": [level(chosen, f"{chosen} used", axis="x")], "yaxis": {"rangemode": "tozero"}}
    note = "Cross-validated; samples stay together."
    if fitted.estimator.n_components == "cv":
        note += " The fewest within one standard error of the best are used."
    return [Plot("Error by latent variables", views, "latent variables", "RMSE", note, layout=layout, height=420)]


def _instruments(model: Model) -> list[Section]:
    """Which instruments it serves, and how; nothing where it knows of none."""
    of, rows = model.instruments, []
    targets = [] if model.class_of else model.targets
    for name in dict.fromkeys((*of.names, *of.lines)):
        if name == of.master:
            how = "it was fitted on these"
        else:
            how = f"a map of rank {of.maps[name].left.shape[1]}" if name in of.maps else "as they are"
        shown = ["none"] * len(targets)
        if (line := of.lines.get(name)) is not None:
            units = [model.units.get(target, "") for target in targets]
            shown = [f"{line.slope[t]:.4g}, {line.bias[t]:.4g} {unit}".rstrip() for t, unit in enumerate(units)]
        rows.append((name, how, *shown))
    headings = ("instrument", "its spectra", *(f"{target}: slope, bias" for target in targets))
    return [Section("Instruments served", [Listing("", headings, rows)])] if rows else []


def _classes(fitted: Fitted) -> list[Listing]:
    """The confusion of classes out of fold, and the rows that were called wrong."""
    validation, classes = fitted.estimator.validation_, fitted.model.classes
    called = np.where(validation.distance > 1, len(classes), validation.probability.argmax(axis=1))
    scores = ClassScores.of(validation.codes, called, len(classes))
    rows = [
        (name, fixed(scores.purity[k], 3), fixed(scores.recovery[k], 3), *map(str, scores.confusion[k].tolist()))
        for k, name in enumerate(classes)
    ]
    headings = (fitted.model.class_of, "purity", "recovery", *(f"as {name}" for name in classes), UNKNOWN)
    notes = ["Out of fold. A spectrum outside the limits of its own class counts as unknown."]
    found = [Listing("", headings, rows, notes)]
    names, called, codes = [*classes, UNKNOWN], called[fitted.rows], validation.codes[fitted.rows]
    wrong = np.flatnonzero(called != codes)
    if len(wrong):
        chance = validation.probability[fitted.rows].max(axis=1)
        shown = wrong[:MOST_WRONG].tolist()
        listed = [(names[codes[i]], names[called[i]], fixed(chance[i], 2), fitted.names[i]) for i in shown]
        notes = [f"{len(wrong) - MOST_WRONG} more"] if len(wrong) > MOST_WRONG else []
        found.append(Listing("", ("is", "called", "probability of the likeliest", "row"), listed, notes))
    return found


def _spectra(fitted: Fitted) -> list[Plot]:
    """Some spectra, raw and treated, with those that are far away."""
    model, n = fitted.model, len(fitted.rows)
    some = set(np.linspace(0, n - 1, min(n, MOST_SPECTRA)).astype(int).tolist())
    rows = [*sorted(some - set(fitted.worst[:NAMED])), *fitted.worst[:NAMED]]
    colouring = model.class_of or model.targets[0]
    note = f"{len(rows)} of {fitted.of:,}, coloured by {colouring}; the farthest of all in bold."
    found, quantity = [], "value" if model.quantity == "unknown" else model.quantity
    parts, spans = model.grid.parts, model.grid.spans
    measured = [
        (f"As measured: {name}" if len(parts) > 1 else "As measured", fitted.spectra[:, spans[name]], part, quantity)
        for name, part in parts.items()
        if len(part) > 1  # a single number is no curve
    ]
    treated = (f"Treated: {fitted.treatment}", fitted.treated, fitted.treated_axis, "treated")
    for title, spectra, axis, quantity in (*measured, treated):
        step = -(-len(axis) // MOST_OF_MANY)
        lines = []
        for row in rows:
            width = 2.2 if row in fitted.worst[:NAMED] else 1
            look, hover = {"color": fitted.colour(row), "width": width}, f"%{{x:.5g}} {axis.unit}: %{{y:.4g}}"
            lines.append(curve(spectra[row, ::step], fitted.names[row], hover, line=look))
        marks, layout = known(axis)
        layout |= {"showlegend": False}
        found.append(Plot(title, {"": [*lines, *marks]}, axis.unit, quantity, note, axis.values[::step], layout))
    return found


def _latent(fitted: Fitted) -> list[Section]:
    """Scores, loadings, explained variances, regression vector and VIP; or a sentence why there are none."""
    latent, model = fitted.latent, fitted.model
    if latent is None:
        why = WITHOUT.get(model.kind.removesuffix("-da"), NETWORK)
        sentence = f"{why}: scores, loadings, a regression vector, VIP and leverages of the whole do not exist. "
        sentence += "tamis explain shows which bands a prediction rests on."
        return [Section("Latent variables", _members(fitted), note=sentence)]
    components, axis = latent.scores.shape[1], fitted.treated_axis
    bands = slice(None, None, -(-len(axis) // MOST_BANDS))
    pairs = [(0, 1), (2, 3)] if components > 3 else [(0, min(1, components - 1))]
    shown = min(components, MOST_LOADINGS)
    marks, layout = known(axis)
    loadings = [
        curve(latent.loadings[bands, a], f"LV {a + 1}", f"%{{x:.5g}} {axis.unit}: %{{y:.3g}}",
              line={"color": coloured(a)["color"], "width": 1.6}) for a in range(shown)
    ]  # fmt: skip
    note = "A click on a name hides it, a double click hides the others. " + (
        "Shaded: known absorptions; their marks at the top tell which." if marks else ""
    )
    drawn = [_explained(fitted)] if components > 1 else []
    return [
        Section("Latent variables", figures=[*(_scores(fitted, *pair) for pair in pairs)]),
        Section("", figures=drawn),
        Section("", figures=[Plot("Loadings", {"": [*loadings, *marks]}, axis.unit, "loading", note,
                                  axis.values[bands], layout)]),
        Section("What a prediction rests on", figures=_importance(fitted)),
    ]  # fmt: skip


def _scores(fitted: Fitted, a: int, b: int) -> Plot:
    latent, n = fitted.latent, len(fitted.rows)
    assert latent is not None
    x, y = latent.scores[:, a] if a != b else np.arange(1.0, n + 1), latent.scores[:, b]
    views = fitted.cloud(x, y, (f"LV {a + 1}: %{{x:.4g}}<br>" if a != b else "") + f"LV {b + 1}: %{{y:.4g}}")
    if n > 3 and a != b:
        angle, reach = np.linspace(0, 2 * np.pi, 90), np.sqrt(hotelling_limits(n, 2)[0])
        ring: Trace = {"type": "scatter", "mode": "lines", "x": x.mean() + reach * x.std(ddof=1) * np.cos(angle),
                       "y": y.mean() + reach * y.std(ddof=1) * np.sin(angle), "hoverinfo": "skip", "showlegend": False,
                       "line": {"color": "--ink", "width": 1, "dash": "dash"}}  # fmt: skip
        views = {label: [ring, *traces] for label, traces in views.items()}
    title = f"Scores {a + 1} and {b + 1}" if a != b else "Scores"
    labels = [f"LV {i + 1} ({latent.explained_x[i]:.1%} of X)" for i in (a, b)]
    labels[0] = labels[0] if a != b else "in the order of the calibration"
    words = [note_at(float(x[row]), float(y[row]), fitted.short(row)) for row in fitted.worst[:NAMED]]
    note = "Dashed: 95 % by T² of these two. Diamonds lie beyond the limits of T² or Q."
    return Plot(title, views, labels[0], labels[1], note, layout={"annotations": words}, height=420)


def _explained(fitted: Fitted) -> Plot:
    latent, model = fitted.latent, fitted.model
    assert latent is not None
    x, hover = np.arange(1, len(latent.explained_x) + 1), "%{x} latent variables: %{y:.1f} %"
    traces = [curve(100 * np.cumsum(latent.explained_x), "spectra (X)", hover, x=x, mode="lines+markers",
                    line={"color": "--c7", "dash": "dot"})]  # fmt: skip
    for t, target in enumerate(model.classes or model.targets):
        share = 100 * np.cumsum(latent.explained_y[:, t])
        look = {"color": coloured(t)["color"]}
        traces.append(curve(share, target, hover, x=x, mode="lines+markers", line=look))
    layout = {"yaxis": {"range": [0, 103]}}
    return Plot("Explained variance", {"": traces}, "latent variables", "% explained, in all", layout=layout)


def _importance(fitted: Fitted) -> list[Plot]:
    """Regression vector, where there is one, and VIP."""
    latent, model, axis = fitted.latent, fitted.model, fitted.treated_axis
    assert latent is not None
    bands, hover = slice(None, None, -(-len(axis) // MOST_BANDS)), f"%{{x:.5g}} {axis.unit}: %{{y:.3g}}"
    drawn = []
    for title, values, label, note in (
        ("Regression vector", None if model.class_of else fitted.estimator.coef_, "coefficient",
         "Of the treated spectrum: value = mean + sum of coefficient × (treated − mean)."),
        ("Importance in projection (VIP)", latent.vip, "VIP", "Above 1: more than a band's even share of what the "
         "latent variables explain of the values (Wold, Johansson & Cocchi 1993)."),
    ):  # fmt: skip
        if values is not None:
            marks, layout = known(axis)
            at = 0.0 if label == "coefficient" else 1.0
            layout["shapes"] = [*layout["shapes"], level(at, "", dash="dash" if at else "solid")]
            views = {
                target: [curve(values[bands, t], target, hover, line={"color": "--c0"}), *marks]
                for t, target in enumerate(model.classes or model.targets)
            }
            layout |= {"showlegend": False}
            drawn.append(Plot(title, views, axis.unit, label, note, axis.values[bands], layout))
    return drawn


def _members(fitted: Fitted) -> list[Listing]:
    """A committee's members and their weights."""
    if not hasattr(fitted.estimator, "members_"):
        return []
    names = fitted.model.classes or fitted.model.targets
    weights = fitted.estimator.weights_.T  # (members, targets)
    order = np.argsort(-weights.mean(axis=1), kind="stable")
    members = fitted.estimator.members_
    rows = [(members[m].kind, members[m].treatment, *(f"{w:.1%}" for w in weights[m])) for m in order.tolist()]
    return [Listing("", ("member", "pre-treatment", *(f"weight for {name}" for name in names)), rows)]


def _distances(fitted: Fitted) -> Plot:
    views = fitted.cloud(fitted.t2, fitted.q, "T² %{x:.3g}<br>Q %{y:.3g}", more=False)
    limits = fitted.model.limits
    shapes = [
        level(limits[key][i], f"{percent} %", axis=axis, dash="dot" if i == 0 else "dash")
        for key, axis in (("t2", "x"), ("q", "y")) for i, percent in enumerate((95, 99))
        if 0 < limits[key][i] < np.inf
    ]  # fmt: skip
    words = [
        note_at(float(np.log10(fitted.t2[row])), float(np.log10(fitted.q[row])), fitted.short(row))
        for row in fitted.worst[:NAMED] if fitted.t2[row] > 0 and fitted.q[row] > 0
    ]  # fmt: skip
    scales = [logarithmic(np.append(each, limits[key][1])) for key, each in (("t2", fitted.t2), ("q", fitted.q))]
    layout = {"xaxis": scales[0], "yaxis": scales[1], "shapes": shapes, "annotations": words}
    note = "Far from the middle, and what the others do not have; each row by a model that has not seen it."
    return Plot("T² and Q", views, "T²", "Q", note, layout=layout, height=420)


def _leverage(fitted: Fitted) -> list[Plot]:
    residuals, model = fitted.residuals, fitted.model
    if residuals is None:
        return []
    views = {}
    for t, target in enumerate(model.targets):
        hover = "leverage %{x:.3g}<br>studentised residual %{y:.3g}"
        dots = points(residuals.leverage, residuals.studentised[:, t], fitted.names, target, hover, color="--c0")
        dots["marker"]["symbol"] = np.where(residuals.far[:, t] | residuals.pulling, "diamond", "circle").tolist()
        views[target] = [dots]
    limit = float(residuals.residual_limits[0])
    shapes = [level(residuals.leverage_limit, "3 × mean", axis="x")]
    shapes += [level(at, "") for at in (limit, -limit)] if len(model.targets) == 1 else []
    layout = {"shapes": shapes, "showlegend": False}
    note = "Upper right and lower right: rows that pull the model towards a value that does not suit them."
    return [Plot("Leverage and residual", views, "leverage", "studentised residual", note, layout=layout, height=420)]
