"""`tamis fit`, `tamis transfer` and `tamis pretrain`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from ... import BadFile, BadSettings, require_learn
from ..services.stop import Stop
from .options import (
    LaboratoryFileOptions,
    StoreOptions,
    TextFileOptions,
    command,
    new_app,
    numbers,
    pairs,
    progress_bar,
    refusing,
    tell,
)

app = new_app()


@command(app)
def fit(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, or patterns such as 'scans/*.spc'.")],
    *,
    target: Annotated[list[str] | None, Option(help="Column to predict: numbers or classes. May be repeated.")] = None,
    model: Annotated[
        str, Option(help="plsr (classes: PLS-DA), local-pls, committee (or auto), cnn, spectratr.")
    ] = "plsr",
    name: Annotated[str, Option(help="The model's name in the store.")] = "default",
    preprocess: Annotated[
        str | None, Option(help="Default: 'snv, savgol 15 2 1', or the model's own; auto: chosen.")
    ] = None,
    components: Annotated[int | None, Option(help="Latent variables; cross-validated if not given (plsr).")] = None,
    epochs: Annotated[int | None, Option(help="At most this many epochs (cnn, spectratr).")] = None,
    seed: Annotated[int, Option(help="Random seed of folds, splits and weights.")] = 0,
    labels: Annotated[
        Path | None, Option("--laboratory", "--labels", help="File of laboratory values, joined by names.")
    ] = None,
    group: Annotated[str | None, Option(help="Column that names the sample (repeats); 'row' for none.")] = None,
    unit: Annotated[list[str] | None, Option(help="TARGET=UNIT, such as glucose=g/L. May be repeated.")] = None,
    encoder: Annotated[Path | None, Option(help="From `tamis pretrain --out`, for a committee.")] = None,
    like: Annotated[Path | None, Option(help="From `tamis compare --json`: the model that was best there.")] = None,
    promote: Annotated[
        bool, Option("--promote", help="Make it current, even if the current version is better.")
    ] = False,
    report: Annotated[Path | None, Option(help="Write a page about the fitted model to this file.")] = None,
    laboratory_options: LaboratoryFileOptions,
    file_options: TextFileOptions,
    store_options: StoreOptions,
) -> None:
    """Fit a model on recorded spectra and publish it. It becomes the current version, unless that one is better.

    \b
    Examples:
      tamis fit tablets.parquet --target assay --where instrument=1 --report assay.html
      tamis fit meat.csv --axis-unit nm --target fat --preprocess 'snv, detrend 2'
      tamis fit soil.parquet --target organic_c --model cnn --seed 1
      tamis fit plastics.parquet --target label --group item --name polymers
      tamis fit 'scans/*.spc' --laboratory values.csv --target protein
      tamis fit tablets.parquet --target assay --model committee \\
        --encoder tablets.safetensors
    """
    from ..fitting.fit import FitOptions, fit_and_publish
    from ..pages.charts import refuse_unwritable, write_page

    refuse_unwritable(report)
    store, targets = store_options.open(), laboratory_options.targets(target)
    if like is not None:
        from ..studies.winner import best_in

        if len(targets) > 1:
            raise BadSettings("--like takes one --target")
        model, preprocess = best_in(like, targets[0]), "auto"
        tell(f"{like}: {model} was the best model of {targets[0]}")
    with refusing(), progress_bar(f"fitting {model}", 1) as update:
        options = FitOptions(
            targets=targets,
            kind="committee" if model == "auto" else model,
            name=name,
            preprocess=preprocess,
            units=pairs(unit, "--unit"),
            laboratory=laboratory_options.of(labels),
            group=group,
            keep=laboratory_options.keep or (),
            tell=tell,
            encoder=encoder,
            reading=file_options.reading(),
            progress=lambda part, error: update(completed=part, description=f"{model}, held-out error {error:.3f} sd²"),
            random_state=seed,
            n_components=components,
            epochs=epochs,
            promote=promote,
        )
        done = fit_and_publish(files, options, store)
    print(done.published(name))
    print(f"  store: {store.root}")
    if report is not None:
        from ..pages.model_page import model_page

        write_page(model_page(f"{name} {done.version}", done.model, done.columns), report)
        print(f"  page: {report}")


@command(app)
def transfer(
    files: Annotated[
        list[Path] | None, Argument(help="Objects measured by both: one file, or one of --from and one of --to.")
    ] = None,
    *,
    name: Annotated[str, Option(help="The model's name in the store.")] = "default",
    master: Annotated[str | None, Option("--from", help="The instrument that the model was fitted on.")] = None,
    other: Annotated[str | None, Option("--to", help="The instrument that it is to serve as well.")] = None,
    column: Annotated[str | None, Option(help="Column that names the instrument; default: instrument.")] = None,
    group: Annotated[str | None, Option(help="Column that names the object; default: object_id or sample_id.")] = None,
    unlabeled: Annotated[
        list[Path] | None, Option("--unlabeled", help="Without pairs: spectra of --to, of the calibration's kind.")
    ] = None,
    mean: Annotated[
        list[str] | None, Option(help="With --unlabeled: TARGET=VALUE, their mean by the laboratory. May be repeated.")
    ] = None,
    check: Annotated[list[Path] | None, Option("--check", help="Samples with laboratory values: test them.")] = None,
    instrument: Annotated[str | None, Option(help="With --check: the instrument that measured them.")] = None,
    laboratory: Annotated[Path | None, Option(help="With --check: file of laboratory values, joined by names.")] = None,
    publish: Annotated[bool, Option("--publish", help="With --check: publish the slope and bias advised.")] = False,
    laboratory_options: LaboratoryFileOptions,
    file_options: TextFileOptions,
    store_options: StoreOptions,
) -> None:
    """Let a model serve another instrument.

    It learns from objects that both have measured, which need no laboratory values. All corrections are tried, and the
    one of the least expected error is published. --unlabeled needs no pairs: it brings mean and spread of other samples
    of the same kind to those of the calibration. --check tests slope and bias of an instrument's results against the
    laboratory, as ISO 12099 does.

    \b
    Examples:
      tamis transfer pairs.parquet --from lab --to handheld --name protein
      tamis transfer lab.csv handheld.csv --from lab --to handheld --name protein
      tamis transfer --unlabeled new.parquet --to handheld --name protein
      tamis transfer --check june.csv --instrument handheld --name protein --publish
    """
    from ..fitting import transfer as of

    store, reading = store_options.open(), file_options.reading()
    with refusing():
        if check:
            if files or master or other or unlabeled or instrument is None:
                raise BadSettings("--check FILE goes with --instrument NAME, and without pairs, --from and --to")
            options = laboratory_options.of(laboratory)
            print(of.check(store, name, check, instrument, reading=reading, laboratory=options, group=group,
                           publish=publish, tell=tell))  # fmt: skip
            return
        if unlabeled:
            if files or other is None:
                raise BadSettings("--unlabeled FILE goes with --to NAME, and without pairs")
            from ..fitting.unpaired import transfer_unpaired_and_publish

            print(transfer_unpaired_and_publish(store, name, unlabeled, (master, other), reading=reading, column=column,
                                                group=group, means=numbers(mean, "--mean"), tell=tell))  # fmt: skip
            print(f"  store: {store.root}")
            return
        if not files or master is None or other is None or mean:
            raise BadSettings(
                "expected FILE --from INSTRUMENT --to INSTRUMENT, --unlabeled FILE --to INSTRUMENT, "
                "or --check FILE --instrument INSTRUMENT"
            )
        print(of.transfer_and_publish(store, name, files, (master, other), reading=reading, column=column,
                                      group=group, tell=tell))  # fmt: skip
        print(f"  store: {store.root}")


@command(app)
def pretrain(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, patterns; laboratory values are ignored.")],
    *,
    name: Annotated[str | None, Option(help="Model to improve; published if it passes the gate.")] = None,
    out: Annotated[Path | None, Option(help="Write the encoder to this file, for `tamis fit --encoder`.")] = None,
    group: Annotated[str | None, Option(help="Column that names the object, to pair its spectra.")] = None,
    gold: Annotated[list[Path] | None, Option(help="Labeled file, for testing only. May be repeated.")] = None,
    laboratory: Annotated[Path | None, Option(help="File of laboratory values of --gold, joined by names.")] = None,
    key: Annotated[str | None, Option(help="Column that joins them: NAME, OURS=THEIRS or row.")] = None,
    encoder: Annotated[Literal["mlp", "cnn", "spectratr"], Option(help="The encoder's network.")] = "mlp",
    objective: Annotated[Literal["nt-xent", "vicreg", "barlow", "masked"], Option(help="The loss.")] = "nt-xent",
    preprocess: Annotated[str, Option(help="Pre-treatments before the encoder.")] = "snv, savgol 15 2 1",
    augment: Annotated[str, Option(help="Physical augmentations, such as 'scatter 0.05, noise 1e-4'.")] = "",
    steps: Annotated[int, Option(min=1, help="Training steps.")] = 1_000,
    batch: Annotated[int, Option(min=2, help="Objects per step.")] = 128,
    seed: Annotated[int, Option(min=0, help="Random seed.")] = 0,
    checkpoint: Annotated[Path | None, Option(help="Continue from this file if a run was stopped.")] = None,
    file_options: TextFileOptions,
    store_options: StoreOptions,
) -> None:
    """Pretrain an encoder on unlabeled spectra. Works best if objects were measured more than once (--group, or a
    column object_id).

    \b
    Examples:
      tamis pretrain line.parquet --group sample_id --name default
      tamis pretrain monday.parquet tuesday.parquet --out encoder.safetensors
      torchrun --nproc-per-node 2 -m tamis.streamer.cli pretrain line.parquet \\
        --out encoder.safetensors
    """
    require_learn("tamis pretrain")
    if (name is None) == (out is None):
        raise BadSettings("give either --name, a model to improve, or --out, a file for the encoder")
    if laboratory is not None and not gold:
        raise BadSettings("--laboratory holds values of the spectra in --gold FILE: give that file too")
    stop = Stop()
    store = store_options.open()
    for path in (out, checkpoint):  # checked before the work
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadFile(f"{path}: expected a file to write, in a folder that exists")
    from ...ssl.pretrain import Interrupted, Recipe, pretrain
    from ..fitting.pretrain import improve_model, read_unlabeled
    from ..fitting.training_data import LaboratoryOptions

    verdict = version = network = health = None
    with refusing(), progress_bar("pretraining", steps) as update:
        recipe = Recipe(encoder, preprocess, objective, augment, steps=steps, batch=batch, seed=seed)
        reading = file_options.reading()
        running: dict[str, Any] = {"checkpoint": checkpoint, "stop": stop}
        running["progress"] = lambda step, loss: update(completed=step + 1, description=f"pretraining, loss {loss:.3f}")
        try:
            if name is None:
                unlabeled, grid = read_unlabeled(files, group, None, reading, tell)
                network, health = pretrain(unlabeled, grid, recipe, **running)
            else:
                values = LaboratoryOptions(labels=laboratory, key=key)
                verdict, version = improve_model(
                    store, name, files, group, gold or [], recipe, reading, values, tell, **running
                )
        except Interrupted as error:
            print(f"{error}; --checkpoint continues from there" if checkpoint else str(error))
            raise typer.Exit(1) from error
    if verdict is not None:
        for check in verdict.checks:
            print(f"{'ok    ' if check.passed else 'FAIL  '} {check.name}: {check.finding}")
        print(f"{name} {version}: published" if version else f"{name}: refused; {verdict.reason}")
        if version is None:
            raise typer.Exit(1)
    elif network is not None and health is not None and out is not None and int(os.environ.get("RANK", "0")) == 0:
        network.save(out)
        print(
            f"{out}: {network.kind} on {network.grid}, {network.width} features; loss {health.loss:.3f}, "
            f"effective rank {health.rankme:.1f}, alignment {health.alignment:.3f}, uniformity {health.uniformity:.2f}"
        )
