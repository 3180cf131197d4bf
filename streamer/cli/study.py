"""`tamis predict`, `tamis inspect`, `tamis compare` and `tamis explain`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ... import BadSettings
from .options import (
    CameraFileOptions,
    LaboratoryFileOptions,
    StoreOptions,
    TextFileOptions,
    command,
    new_app,
    progress_bar,
    refusing,
    tell,
    values_by_name,
)

app = new_app()
MODELS = (
    "Separated by commas: plsr, local-pls, committee, cnn, spectratr; tamis, tamis-random (committees with encoders); "
    "with --pairs mean-shift, ds, ds-fisher, fisher-pls, fisher-gp, weighed, cnn-pairs; for classes pls-da, "
    "committee, cnn, spectratr. Default: "
    "plsr, local-pls, committee; for classes pls-da, committee."
)


@command(app)
def predict(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, or patterns such as 'scans/*.spc'.")],
    *,
    model: Annotated[str, Option(help="Its name in the store.")] = "default",
    version: Annotated[str | None, Option(help="Such as v0003; default: the current one.")] = None,
    to: Annotated[
        Path | None, Option(help="A file that ends in .csv, .parquet or .xlsx; default: CSV to stdout.")
    ] = None,
    csv: Annotated[bool, Option("--csv", help="Write CSV.")] = False,
    parquet: Annotated[bool, Option("--parquet", help="Write Parquet.")] = False,
    xlsx: Annotated[bool, Option("--xlsx", help="Write a spreadsheet.")] = False,
    line: Annotated[str | None, Option(help="The line's name, whatever the file says.")] = None,
    instrument: Annotated[str | None, Option(help="The instrument's name, whatever the file says.")] = None,
    file_options: CameraFileOptions,
    store_options: StoreOptions,
) -> None:
    """Predict recorded spectra. Writes values with 90 % intervals, and whether to trust each. Files may be larger
    than memory.

    \b
    Examples:
      tamis predict monday.parquet --model protein > monday.csv
      tamis predict 'scans/*.spc' --model protein --to predictions.xlsx
      tamis predict 2025/ 2026/ --model protein --version v0003 --to archive.parquet
    """
    from ..monitoring.logs import configure
    from ..tools.predict import form_of, predict

    configure()
    if csv + parquet + xlsx > 1:
        raise BadSettings("--csv, --parquet and --xlsx exclude each other: give one")
    form = form_of(to, "csv" if csv else "parquet" if parquet else "xlsx" if xlsx else None)
    notes: set[tuple[str, str]] = set()

    def say(path: str, note: str) -> None:
        if (path, note) not in notes:
            notes.add((path, note))
            tell(f"{path}: {note}")

    reading = file_options.reading(
        line=line, instrument=instrument, on_note=say, on_bad_row=lambda row: tell(f"left out: {row}")
    )
    done = predict(store_options.open(), model, version, files, to, form, reading)
    left_out = f"; {done.bad_rows} row{'s' * (done.bad_rows != 1)} left out" if done.bad_rows else ""
    tell(f"{model} {done.version}: {done.spectra} spectra, {done.untrusted} not trusted{left_out}"
         + (f"; written to {to}" if to else ""))  # fmt: skip


@command(app, "inspect")
def inspect_files(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, or patterns such as 'scans/*.spc'.")],
    *,
    target: Annotated[
        list[str] | None, Option(help="Column to look at as a target; default: all that may be one. Repeatable.")
    ] = None,
    laboratory: Annotated[Path | None, Option(help="File of laboratory values, joined by names.")] = None,
    key: Annotated[str | None, Option(help="Column that joins laboratory values: NAME, OURS=THEIRS or row.")] = None,
    group: Annotated[str | None, Option(help="Column that names the sample (repeats); 'row' for none.")] = None,
    out: Annotated[Path | None, Option(help="Write a page with charts to this file.")] = None,
    file_options: TextFileOptions,
) -> None:
    """Show what fit would see in a file, and what looks wrong with it.

    \b
    Examples:
      tamis inspect meat.csv --axis-unit nm
      tamis inspect soil.parquet --target organic_c --out soil.html
      tamis inspect 'scans/*.spc' --laboratory values.csv --out scans.html
    """
    from ..fitting.training_data import LaboratoryOptions
    from ..monitoring.logs import configure
    from ..pages.charts import refuse_unwritable, write_page
    from ..pages.inspection_page import inspection_page
    from ..studies.inspect import inspect

    configure()
    refuse_unwritable(out)
    with refusing():
        found = inspect(
            files, file_options.reading(), target or [], group, LaboratoryOptions(labels=laboratory, key=key)
        )
    print(found.text())
    if out is not None:
        name = files[0].name if len(files) == 1 else f"{len(files)} files"
        write_page(inspection_page(f"A look at {name}", "As fit would read it.", [found.for_page()]), out)
        print(f"page: {out}")


@command(app)
def compare(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, or patterns such as 'scans/*.spc'.")],
    *,
    target: Annotated[list[str] | None, Option(help="Column to predict: numbers or classes. May be repeated.")] = None,
    models: Annotated[str | None, Option(help=MODELS)] = None,
    split: Annotated[str | None, Option(help="Column of cal/train and test/val; default: test a third.")] = None,
    test: Annotated[list[str] | None, Option(help="For classes: COLUMN=VALUE, the test rows. Repeatable.")] = None,
    hide: Annotated[
        list[str] | None, Option(help="For classes: leave this one out of training. May be repeated.")
    ] = None,
    group: Annotated[str | None, Option(help="Column that names the sample (repeats); 'row' for none.")] = None,
    laboratory: Annotated[Path | None, Option(help="File of laboratory values, joined by names.")] = None,
    labels: Annotated[list[int] | None, Option(min=10, help="Few labels, nested. May be repeated.")] = None,
    seeds: Annotated[int, Option(min=1, help="Draws of labels and of networks' starts.")] = 1,
    pairs: Annotated[str | None, Option(help="Column of two conditions: train on the first, test the other.")] = None,
    unlabeled: Annotated[list[Path] | None, Option(help="Spectra to pretrain on; default: FILE's own.")] = None,
    stream: Annotated[str | None, Option(help="Column whose values come one by one: test, then train.")] = None,
    json: Annotated[Path | None, Option(help="Write all results to this file.")] = None,
    html: Annotated[Path | None, Option(help="Write a page with charts to this file.")] = None,
    publish: Annotated[str | None, Option(help="Fit the best on all rows, and publish it under this name.")] = None,
    laboratory_options: LaboratoryFileOptions,
    file_options: TextFileOptions,
    store_options: StoreOptions,
) -> None:
    """Compare models on the same rows. Says which one wins, and by how much.

    \b
    Examples:
      tamis compare meat.parquet --target fat --split split --models plsr,cnn
      tamis compare tablets.parquet --target assay --labels 30 --seeds 10
      tamis compare soil.parquet --target organic_c --html soil.html
      tamis compare meat.parquet --target fat --publish fat
      tamis compare tablets.parquet --target assay --split split \\
        --pairs instrument --group sample_id --models plsr,fisher-gp,ds,weighed
      tamis compare plastics.parquet --target label --test campaign=2023
      tamis compare milk.parquet --target fat_percent --stream sensor \\
        --labels 10 --models tamis,tamis-static,plsr
    """
    from ..monitoring.logs import configure
    from ..pages.charts import refuse_unwritable, write_page
    from ..studies import tables
    from ..studies.comparison import compare
    from ..studies.tasks import CompareOptions

    configure()
    for given, option in ((split, "--split"), (pairs, "--pairs"), (unlabeled, "--unlabeled"), (html, "--html")):
        if stream is not None and given:
            raise BadSettings(f"--stream and {option} exclude each other")
    if publish is not None and (stream is not None or len(target or []) + len(laboratory_options.classes or []) > 1):
        raise BadSettings("--publish takes one --target, and no --stream")
    if stream is not None and len(labels or []) > 1:
        raise BadSettings("--stream takes --labels once: the number for each value of the column")
    options = CompareOptions(
        files=files, targets=laboratory_options.targets(target), split=split,
        models=[name.strip() for name in models.split(",")] if models else [],
        test=values_by_name(test, "--test"), hide=hide or [], group=group, labels=sorted(labels or []), seeds=seeds,
        pairs=pairs, unlabeled=unlabeled or [], stream=stream, reading=file_options.reading(),
        laboratory=laboratory_options.of(laboratory), keep=laboratory_options.keep or [],
    )  # fmt: skip
    refuse_unwritable(json, html)
    with refusing(), progress_bar("reading") as update:
        done = compare(options, lambda text, fits, of: update(description=text, completed=fits, total=of), tell)
    tables.show(tables.listings(done, more_on_page=html is not None))
    if json is not None:
        import orjson

        write_page(orjson.dumps(tables.as_json(done), option=orjson.OPT_INDENT_2).decode() + "\n", json)
    if html is not None:
        from ..studies.pages import comparison_page

        write_page(comparison_page(done), html)
        print(f"page: {html}")
    if publish is not None:
        from ..fitting.fit import CHOSEN, FitOptions, fit_and_publish
        from ..studies.winner import winner

        store, (of, _) = store_options.open(), done.groups()[-1]
        with refusing():
            best = winner(done.ranked(of, max(labels for _, labels in done.groups())))
            fitting = FitOptions(
                targets=[of], kind=best, name=publish, preprocess=CHOSEN, laboratory=options.laboratory, group=group,
                keep=options.keep, tell=tell, reading=options.reading, by="tamis compare",
            )  # fmt: skip
            print(fit_and_publish(files, fitting, store).published(publish))


@command(app)
def explain(
    name: Annotated[str, Argument(help="The model in the store.")],
    file: Annotated[Path, Argument(help="Spectra of the kind it predicts.")],
    *,
    target: Annotated[str | None, Option(help="A target or a class; the first one by default.")] = None,
    version: Annotated[str | None, Option(help="Of the model; the current one by default.")] = None,
    html: Annotated[Path | None, Option(help="Write a page with charts to this file.")] = None,
    file_options: TextFileOptions,
    store_options: StoreOptions,
) -> None:
    """Show which wavelengths a model's predictions rest on.

    \b
    Examples:
      tamis explain polymers plastics.parquet --target PVC --html pvc.html
      tamis explain default meat.csv --axis-unit nm
    """
    from ..files.many import read_table
    from ..pages.charts import refuse_unwritable, write_page
    from ..studies.explain import explain
    from ..studies.pages import explanation_page
    from ..studies.tables import show

    store = store_options.open()
    refuse_unwritable(html)
    with refusing():
        model, version = store.load(name, version)
        done = explain(model, read_table(file, file_options.reading()), target)
    found = done.regions(f"{name} {version}, {done.target}: what it rests on, by {done.n} spectra")
    notes = [] if done.agreement is None else [f"attention and occlusion: rank correlation {done.agreement:+.2f}"]
    show([*filter(None, [done.sensors()]), found._replace(notes=notes)])
    if html is not None:
        write_page(explanation_page(done), html)
        print(f"page: {html}")
