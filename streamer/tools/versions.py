"""The versions of a model in words: what happened to them, which was current at a time, and how two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ... import NoModel, TamisError
from ...models.axis import Axis
from ...models.history import Entry, Log
from ...models.instruments import Line
from ...models.steps import Affine
from ...models.store import Store

_SHOWN = 12  # labels in a line
_DIFFERING = {
    "kind": "kind of model",
    "preprocessing": "pre-treatment",
    "parameters": "parameter",
    "targets": "targets",
    "class_of": "classes of",
    "units": "unit",
    "quantity": "quantity",
    "grid": "axis",
    "training": "training",
    "limits": "95 % and 99 % limits of",
    "metrics": "figure",
    "libraries": "library",
}  # what a manifest holds, in the order in which differences are named
_WORDS = {
    "balanced_accuracy": "balanced accuracy",
    "fingerprint": "fingerprint of its values",
    "folds": "folds of the cross-validation",
    "held": "values held back",
    "label_ids": "laboratory values learned",
    "labels": "samples with laboratory values, with those of the calibration",
    "labels_until": "laboratory values, up to number",
    "latent_variables": "latent variables",
    "max_components": "latent variables at most",
    "member": "made by",
    "n_components": "latent variables",
    "out_of_fold": "out of fold,",
    "promised": "promised error,",
    "q": "Q",
    "random_state": "random seed",
    "rmsec": "RMSEC of",
    "rmsecv": "RMSECV of",
    "source": "from",
    "spectra_until": "unlabeled spectra, up to number",
    "t2": "T²",
    "transferred": "of tamis transfer, the way chosen",
    "why": "made for the sake of",
}  # names in a manifest that say little to a person
_VALUES = {"cv": "by cross-validation"}


def history(store: Store, name: str) -> Iterator[str]:
    """A line for each entry of the log, the oldest first."""
    log = _log(store, name)
    for entry in log.entries:
        moved = entry.to if entry.was in (None, entry.to) else f"{entry.was} -> {entry.to}"
        instead = f" in place of {entry.replaced}" if entry.replaced else ""
        yield _plain(f"{_moment(entry.time)}  {entry.version}  {entry.action}: {moved}{instead}  by {_who(entry)}")
        if entry.why:
            yield _plain(f"    {entry.why}")
        for line in (*_figures(entry.figures), *_sources(entry)):
            yield _plain(f"    {line}")
    if log.unreadable:
        lines = "1 line" if log.unreadable == 1 else f"{log.unreadable} lines"
        yield f"{lines} of the log cannot be read: writing was cut off there"


def current_at(store: Store, name: str, when: datetime) -> list[str]:
    """Which version was current at a time, who made it so, and what it was trained on. Raises NoModel if none was."""
    log = _log(store, name)
    entry = log.current_at(when)
    if entry is None:
        begun = log.entries[0].since or log.entries[0].time if log.entries else None
        known = f"its log begins on {_moment(begun)}" if begun else "nothing was published"
        raise NoModel(f"model {name!r}: no version is known to have been current on {_moment(when)}; {known}")
    version, later = entry.version, [one for one in log.entries if one.to == "current"]
    after = later[later.index(entry) + 1 :]
    until = f"until {_moment(after[0].since or after[0].time)}, then {after[0].version}" if after else "and still is"
    lines = [
        f"{name} {version} was current on {_moment(when)}",
        f"since {_moment(entry.since or entry.time)} ({entry.action} by {_who(entry)}), {until}",
        *([f"why: {entry.why}"] if entry.why else []),
    ]
    try:
        manifest = store.manifest(name, version)
        lines.append(f"{manifest['kind']} for {', '.join(_targets(manifest))}; {_treated(manifest)}")
        lines += _verdict(manifest)
    except TamisError:
        lines.append("its bundle is no longer in the store, or damaged; this is what the log says")
    return [_plain(line) for line in (*lines, *_lineage(store, name, log, version))]


def about(store: Store, name: str, version: str) -> list[str]:
    """Stage, verdict and figures of a version in shadow, in a few lines."""
    log, manifest = _log(store, name), store.manifest(name, version)
    lines = [f"{name} {version}: {log.stage(version)}", *_verdict(manifest)]
    figures = [entry.figures for entry in log.entries if entry.version == version and entry.figures]
    lines += _figures(figures[-1]) if figures else []
    return [_plain(line) for line in lines]


def differences(store: Store, name: str, one: str, other: str) -> list[str]:
    """A line for each thing in which two versions differ; raises NoModel or BadBundle."""
    log = _log(store, name)
    before, after = (_flat(store.manifest(name, version)) for version in (one, other))
    lines = [f"{name} {one} ({log.stage(one)}) -> {other} ({log.stage(other)})"]
    for part, word in _DIFFERING.items():
        of_part = [key for key in (*before, *(key for key in after if key not in before)) if key[0] == part]
        for key in of_part:
            if before.get(key) != after.get(key):
                what = " ".join((word, *(_WORDS.get(name, name) for name in key[1:])))
                lines.append(f"{what}: {_change(before.get(key), after.get(key))}")
    lines += _of_instruments(store, name, one, other)
    old, new = (set(_label_ids(log, store, name, version)) for version in (one, other))
    for ids, word in ((new - old, "more"), (old - new, "fewer")):
        if ids:
            lines.append(f"laboratory values: {len(ids)} {word}: {_some(sorted(ids))}")
    same = [word for part, word in _DIFFERING.items() if not any(line.startswith(word) for line in lines)]
    return [_plain(line) for line in (*lines, f"the same: {', '.join(same)}")]


def _log(store: Store, name: str) -> Log:
    if name not in store.names():
        store.current(name)  # raises NoModel, with the names that there are
    return store.log(name)


def _lineage(store: Store, name: str, log: Log, version: str | None) -> Iterator[str]:
    """What a version was trained on, back to the files: a trainer's version learns on from the one before it."""
    seen: set[str] = set()
    while version is not None and version not in seen:
        seen.add(version)
        published, training, parent = log.published(version), {}, None
        try:
            manifest = store.manifest(name, version)
            training, parent = manifest["training"], manifest["parent"]
        except TamisError:
            parent = published.parent if published else None
        files = training.get("files") or (published.files if published else ())
        labels = training.get("label_ids") or (published.labels if published else ())
        spectra = f"{training['spectra']} spectra" if "spectra" in training else "spectra"
        if labels:
            yield f"{version} learned {len(labels)} laboratory values: {_some(labels)}"
        if files:
            yield f"{version} was fitted on {spectra} of"
            yield from (f"  {one.get('name')}  sha256 {one.get('sha256')}" for one in files)
            return
        if not labels:
            source = training.get("source") or "files that are not recorded"
            yield f"{version} was fitted on {spectra} of {source}"
        if "why" not in training and not labels:  # fitted from files by an older Tamis
            return
        version = parent
        if version is not None:
            yield f"it started from {version}"


def _sources(entry: Entry) -> Iterator[str]:
    if entry.labels:
        yield f"laboratory values: {_some(entry.labels)}"
    for one in entry.files:
        yield f"file {one.get('name')}  sha256 {one.get('sha256')}"


def _verdict(manifest: Mapping[str, Any]) -> list[str]:
    """What the trainer's gate or `tamis fit` found."""
    metrics = manifest.get("metrics", {})
    lines = []
    for check in metrics.get("gate", {}).get("checks", ()):
        lines.append(f"gate: {'ok' if check['passed'] else 'FAILED'}, {check['name']}: {check['told']}")
    if compared := metrics.get("compared"):
        worse = "" if compared["passed"] else "not as good; "
        lines.append(f"compared with {compared['current']} by tamis fit: {worse}{compared['why']}")
    return lines


def _figures(figures: Mapping[str, Any]) -> list[str]:
    """A table, if each figure has columns; else a line for each."""
    if not figures:
        return []
    rows = {name: value if isinstance(value, dict) else {"": value} for name, value in figures.items()}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    cells = [["", *columns], *([name, *(_number(row.get(column)) for column in columns)] for name, row in rows.items())]
    widths = [max(len(str(row[i])) for row in cells) for i in range(len(columns) + 1)]
    shown = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [line for line in shown if line]


def _of_instruments(store: Store, name: str, one: str, other: str) -> list[str]:
    """Which instruments are served, and whose map, slope or bias differ: these are arrays, not in a manifest."""
    if not any(store.manifest(name, version).get("instruments") for version in (one, other)):
        return []
    try:
        (old, _), (new, _) = (store.load(name, version) for version in (one, other))
        calibration = store.calibration(name, other)
    except TamisError as error:  # such as a network without torch
        return [f"instruments: whether they are served alike cannot be said here: {error}"]
    before, after = old.instruments, new.instruments
    typical = None
    if calibration is not None and old.grid == new.grid:
        typical = calibration.spectra.mean(axis=0, dtype=np.float64, keepdims=True)
    lines = []
    if before.master != after.master:
        lines.append(f"instrument of the calibration: {_change(before.master, after.master)}")
    for of in dict.fromkeys((*before.maps, *after.maps)):
        if _same([vars(each.maps[of]) if of in each.maps else {} for each in (before, after)]):
            continue
        ranks = [f"of rank {each.maps[of].left.shape[1]}" if of in each.maps else None for each in (before, after)]
        text = f"another one, {ranks[0]} -> {ranks[1]}" if all(ranks) else _change(*ranks)
        if typical is not None:
            moved = np.abs(after.mapped(typical, of) - before.mapped(typical, of))[0]
            at = f"by up to {moved.max():.2g}, at {new.grid.place(int(moved.argmax()))}"
            text += f"; it changes the mean spectrum {at}" if moved.max() else "; the mean spectrum stays as it is"
        lines.append(f"map of instrument {of}: {text}")
    filters = [[vars(step) for step in each.pipeline.steps if isinstance(step, Affine)] for each in (old, new)]
    if len(filters[0]) == len(filters[1]) and not all(map(_same, zip(*filters, strict=True))):
        lines.append("pre-treatment affine, the filter of what differs between instruments: another one")
    for of in dict.fromkeys((*before.lines, *after.lines)):
        if not _same([each.lines[of]._asdict() if of in each.lines else {} for each in (before, after)]):
            shown = (_line(each.lines.get(of), model.targets) for each, model in ((before, old), (after, new)))
            lines.append(f"slope and bias of instrument {of}: {_change(*shown)}")
    served = [", ".join(each.names) or "not named" for each in (before, after)]
    both = f"{served[0]} by both{'' if lines else ', in the same way'}"
    return [f"instruments served: {both if served[0] == served[1] else ' -> '.join(served)}", *lines]


def _same(arrays: Sequence[Mapping[str, np.ndarray]]) -> bool:
    one, other = arrays
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _line(line: Line | None, targets: Sequence[str]) -> str:
    """Slope and bias of each target."""
    found = []
    for target, slope, bias, spread in () if line is None else zip(targets, *line, strict=True):
        wider = "" if f"{spread:.3g}" == "1" else f", intervals {spread:.3g} times as wide"
        found.append(f"{target} slope {slope:.4g}, bias {bias:.4g}{wider}")
    return "; ".join(found)


def _flat(manifest: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """(part, name, name) -> value of what a person may compare."""
    training = {key: value for key, value in manifest["training"].items() if key != "label_ids"}
    training["files"] = [f"{one['name']} (sha256 {one['sha256'][:12]})" for one in training.get("files", ())]
    hidden = ("gate", "compared", "transfer")
    metrics = {key: value for key, value in manifest.get("metrics", {}).items() if key not in hidden}
    if moved := manifest.get("metrics", {}).get("transfer"):  # which names all ways that were tried, too
        metrics["transferred"] = moved.get("chosen")
    parts = {**manifest, "training": training, "metrics": metrics, "targets": ", ".join(manifest["targets"])}
    parts |= {"preprocessing": _treated(manifest), "grid": axis(manifest)}
    found: dict[tuple[str, ...], Any] = {}

    def put(key: tuple[str, ...], value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                put((*key, name), inner)
        else:
            found[key] = value

    for part in _DIFFERING:
        put((part,), parts.get(part, ""))
    return found


def axis(manifest: Mapping[str, Any]) -> str:
    return str(Axis.from_json(manifest["grid"]))


def _treated(manifest: Mapping[str, Any]) -> str:
    steps = map(_step, manifest["preprocessing"])
    return ", ".join(steps) or "no pre-treatment"


def _step(step: Mapping[str, Any]) -> str:
    if isinstance(texts := step.get("texts"), Mapping):
        return "; ".join(f"{name}: {text}" for name, text in texts.items())
    return " ".join(str(value) for value in step.values() if value is not None)


def _targets(manifest: Mapping[str, Any]) -> list[str]:
    units = manifest["units"]
    return [f"{target} [{units[target]}]" if units.get(target) else target for target in manifest["targets"]]


def _change(before: Any, after: Any) -> str:
    if isinstance(before, float) and isinstance(after, float) and before:
        return f"{_number(before)} -> {_number(after)} ({(after - before) / abs(before):+.1%})"
    return f"{_number(before)} -> {_number(after)}"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_number, value)) or "none"
    return "none" if value in (None, "") else _VALUES.get(value, str(value)) if isinstance(value, str) else str(value)


def _label_ids(log: Log, store: Store, name: str, version: str) -> Sequence[str]:
    published = log.published(version)
    return store.manifest(name, version)["training"].get("label_ids") or (published.labels if published else ())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _who(entry: Entry) -> str:
    return f"{entry.by} ({entry.user})" if entry.user else entry.by


def _moment(when: datetime) -> str:
    return f"{when.strftime('%Y-%m-%d %H:%M:%S')} UTC"


def _plain(text: str) -> str:
    """Without characters that steer a terminal: ids of laboratory values come from outside."""
    return "".join(one if one.isprintable() else "?" for one in text)
