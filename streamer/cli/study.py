"""`tamis compare` and `tamis explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ... import BadSettings
from .options import AxisUnit, Config, Quantity, StoreOptions, StoreUrl, Where, new_app
from .options import only_warnings as _quiet
from .options import values_by_name as _values

app = new_app()


@app.command()
def compare(
    file: Annotated[Path, Argument(help="Spectra with laboratory values: Parquet, CSV or NumPy.")],
    target: Annotated[list[str], Option(help="Column to predict; of texts, its classes. May be repeated.")],
    models: Annotated[
        str | None,
        Option(
            help="Of plsr, local-pls, committee, cnn, spectratr; tamis, tamis-random (committees with encoders); with "
            "--pairs mean-shift, epo, ds, ds-gp, cca, fisher-pls, fisher-gp, weighed, cnn-pairs; of classes pls-da, "
            "committee, cnn, spectratr, each with -self to learn from unlabeled spectra as well; parted by commas. "
            "Else plsr,local-pls,committee, and of classes pls-da,committee."
        ),
    ] = None,
    split: Annotated[str | None, Option(help="Column that says cal/train or test/val; else a third.")] = None,
    test: Annotated[
        list[str] | None, Option(help="Of classes: COLUMN=VALUE are the test rows. May be repeated.")
    ] = None,
    hide: Annotated[list[str] | None, Option(help="Of classes: one that nobody is taught. May be repeated.")] = None,
    group: Annotated[str | None, Option(help="Column whose equal values (repeats) never part.")] = None,
    labels: Annotated[list[int] | None, Option(min=10, help="Few labels, nested. May be repeated.")] = None,
    seeds: Annotated[int, Option(min=1, help="Draws of labels and of networks' starts.")] = 1,
    pairs: Annotated[
        str | None, Option(help="Column of two conditions: labels from the first, test rows of the second.")
    ] = None,
    unlabeled: Annotated[
        list[Path] | None, Option(help="Spectra to pretrain on; else the file's own, less the test objects.")
    ] = None,
    stream: Annotated[
        str | None,
        Option(help="Column whose values, in the file's order, come one after another: test, then train."),
    ] = None,
    json: Annotated[Path | None, Option(help="Write every cell to this file.")] = None,
    html: Annotated[Path | None, Option(help="Write a page with charts to this file.")] = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
) -> None:
    """Compare models on the same rows of a recorded file.

    \b
    Examples:
      tamis compare meat.parquet --target fat --split split --models plsr,local-pls,cnn
      tamis compare tablets.parquet --target assay --where instrument=1 --labels 30 --labels 100 --seeds 10
      tamis compare soil.parquet --target organic_c --split split --html soil.html --json soil.json
      tamis compare tablets.parquet --target assay --pairs instrument --group sample_id --split split \
        --models plsr,fisher-gp,ds,cnn-pairs,tamis,tamis-random
      tamis compare plastics.parquet --target label --group item --models pls-da,pls-da-self --test campaign=2023
      tamis compare milk.parquet --target fat_percent --stream sensor --labels 10 --models tamis,tamis-static,plsr
    """
    from ..comparing import holds_classes, run_compare, run_compare_classes, run_stream

    _quiet()
    reading = {"axis_unit": axis_unit, "quantity": quantity, "where": _values(where, "--where")}
    how = {"split": split, "group": group, "labels": sorted(labels or []), "seeds": seeds, "reading": reading}
    of_classes = stream is None and holds_classes(file, target, reading)
    if (test or hide) and not of_classes:
        raise BadSettings(f"--test and --hide are for a target of classes: {', '.join(target)} is none; see --split")
    usual = "pls-da,committee" if of_classes else "plsr,local-pls,committee"
    names = [name.strip() for name in (models or usual).split(",")]
    try:
        if stream is not None:
            for given, option in ((split, "--split"), (pairs, "--pairs"), (unlabeled, "--unlabeled"), (html, "--html")):
                if given:
                    raise BadSettings(f"--stream and {option} exclude each other")
            if len(how["labels"]) > 1:
                raise BadSettings("--stream takes --labels once: so many of each value of the column")
            run_stream(file, target, stream, names, how, json)
        elif of_classes:
            how = {"split": split, "test": _values(test, "--test"), "hide": hide or [], "group": group}
            run_compare_classes(file, target, names, how | {"seeds": seeds, "reading": reading}, json, html)
        else:
            run_compare(file, target, names, how | {"pairs": pairs, "unlabeled": unlabeled or []}, json, html)
    except ValueError as error:
        raise BadSettings(str(error)) from error


@app.command()
def explain(
    name: Annotated[str, Argument(help="The model in the store.")],
    file: Annotated[Path, Argument(help="Spectra such as it predicts.")],
    target: Annotated[str | None, Option(help="A target, or a class; else the first one.")] = None,
    version: Annotated[str | None, Option(help="Of the model; the current one where none is named.")] = None,
    html: Annotated[Path | None, Option(help="Write a page with charts to this file.")] = None,
    store: StoreUrl = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
    config: Config = None,
) -> None:
    """Show which wavelengths a model's predictions depend on. And which bonds are known to absorb there.

    \b
    Examples:
      tamis explain polymers plastics.parquet --target PVC --where label=PVC --html pvc.html
      tamis explain default meat.csv --axis-unit nm
    """
    from ...models.store import Store
    from ..comparing import run_explain

    settings = StoreOptions(config, store).settings()
    reading = {"axis_unit": axis_unit, "quantity": quantity, "where": _values(where, "--where")}
    try:
        run_explain(Store(settings.store), name, version, file, target, reading, html)
    except ValueError as error:
        raise BadSettings(str(error)) from error
