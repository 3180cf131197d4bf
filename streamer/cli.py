"""The command `tamis`. Each command imports what it needs when it runs: help must answer at once."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import BadSettings, BrokerAbsent, Fenced, Stalled, TamisError, TooManyRejects, __version__

if TYPE_CHECKING:
    from .settings import Settings

app = typer.Typer(
    name="tamis",
    help="Spectra of a sorting line in, predictions that say whether to trust them out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich doubles the time that help takes
)
models = typer.Typer(help="Look at the model store, and roll back.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models, name="models")
drift = typer.Typer(help="Look at what each line's drift is held against.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(drift, name="drift")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings, TOML; TAMIS_CONFIG names it too.")]
Brokers = Annotated[str | None, typer.Option(help="Kafka bootstrap servers, host:port[,host:port].")]
StoreUrl = Annotated[str | None, typer.Option("--store", help="Folder of the model store, or file:///folder.")]
AxisUnit = Annotated[str | None, typer.Option(help="nm or cm-1, for a file that does not say.")]
Quantity = Annotated[str | None, typer.Option(help="absorbance, reflectance or counts, for a file that is silent.")]
White = Annotated[Path | None, typer.Option(help="ENVI cube of a white reference: counts become reflectance.")]
Dark = Annotated[Path | None, typer.Option(help="ENVI cube of a dark reference; else zero.")]
Where = Annotated[list[str] | None, typer.Option(help="COLUMN=VALUE: only these rows. May be repeated.")]


def main() -> None:
    """Errors that Tamis raises on purpose are told in their own words: 1 for most, 2 for settings."""
    try:
        app()
    except BadSettings as error:
        _say_error(error)
        sys.exit(2)
    except TamisError as error:
        _say_error(error)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        sys.exit(0)


def _say_error(error: Exception) -> None:
    for line in str(error).splitlines():
        print(f"tamis: {line}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"tamis {__version__}")
        raise typer.Exit


@app.command()
def fit(
    file: Annotated[Path, typer.Argument(help="Spectra with laboratory values: Parquet, CSV or NumPy.")],
    target: Annotated[list[str], typer.Option(help="Column to predict; of texts, its classes. May be repeated.")],
    model: Annotated[str, typer.Option(help="plsr (classes: PLS-DA), local-pls, committee, cnn, spectratr.")] = "plsr",
    store: StoreUrl = None,
    name: Annotated[str, typer.Option(help="The model's name in the store.")] = "default",
    preprocess: Annotated[
        str | None, typer.Option(help="Pre-treatments, left to right; else 'snv, savgol 15 2 1', or the model's own.")
    ] = None,
    components: Annotated[int | None, typer.Option(help="Latent variables; else cross-validated (plsr).")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many epochs (cnn, spectratr).")] = None,
    seed: Annotated[int, typer.Option(help="Of folds, splits and weights.")] = 0,
    labels: Annotated[Path | None, typer.Option(help="A CSV with the targets, by row or by spectrum_id.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose equal values are repeats of one sample.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="TARGET=UNIT, such as glucose=g/L.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Of `tamis pretrain --out`, for a committee.")] = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
    config: Config = None,
) -> None:
    """Fit a model on a recorded file and publish it as the current version.

    \b
    Examples:
      tamis fit tablets.parquet --target assay --where instrument=1 --name tablets
      tamis fit meat.csv --axis-unit nm --target fat --target water --preprocess 'snv, savgol 11 2 2'
      tamis fit soil.parquet --target organic_c --model cnn --seed 1
      tamis fit plastics.parquet --target label --group item --name polymers
      tamis fit tablets.parquet --target assay --model committee --encoder tablets.safetensors
    """
    from ..models.store import Store
    from .fitting import fit_and_publish

    settings = _settings(config, store=store)
    _quiet()
    try:
        done = fit_and_publish(
            file,
            target,
            kind=model,
            store=Store(settings.store),
            name=name,
            preprocess=preprocess,
            parameters={"n_components": components, "epochs": epochs},
            random_state=seed,
            progress=_told_at_a_terminal(f"fitting {model} on {file} ..."),
            units=_pairs(unit, "--unit"),
            labels=labels,
            group=group,
            encoder=_encoder(encoder),
            reading={"axis_unit": axis_unit, "quantity": quantity, "where": _values(where, "--where")},
        )
    except ValueError as error:  # a parameter that does not suit these data; the text says which
        raise BadSettings(str(error)) from error
    trained = done.model.training["spectra"]
    treated = str(done.model.pipeline) or "no pre-treatment"
    print(f"{name} {done.version}: {done.model.kind} on {trained} spectra, {done.model.grid}; {treated}")
    if done.dropped:
        print(f"  {done.dropped} rows left out: no value, or a spectrum that is not finite")
    if "latent_variables" in done.metrics:
        print(f"  latent variables: {done.metrics['latent_variables']}")
    for told in _class_figures(done.metrics.get("out_of_fold")):
        print(told)
    for key, rmsec in done.metrics.get("rmsec", {}).items():
        validated = done.metrics.get("rmsecv", {}).get(key)
        also = "" if validated is None else f", RMSECV {validated:.4g}"
        print(f"  {key}: RMSEC {rmsec:.4g}{also} {done.model.units.get(key, '')}".rstrip())
    print(f"  store: {settings.store}")


def _told_at_a_terminal(text: str) -> bool:
    """Says it where somebody waits and watches; gives whether."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)
    return sys.stderr.isatty()


def _class_figures(figures: dict[str, Any] | None) -> list[str]:
    """What a classifier makes of spectra that it has not seen, class by class."""
    if figures is None:
        return []
    told = [f"  out of fold: balanced accuracy {figures['balanced_accuracy']:.3f}, unknown {figures['unknown']:.1%}"]
    width = max(map(len, figures["purity"]))
    for name, purity in figures["purity"].items():
        told.append(f"  {name:<{width}}  purity {purity:.3f}  recovery {figures['recovery'][name]:.3f}")
    return told


@app.command()
def pretrain(
    files: Annotated[list[Path], typer.Argument(help="Recorded spectra; no laboratory values are looked at.")],
    name: Annotated[str | None, typer.Option(help="Model to improve: judged, and published if it passes.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the encoder to this file, for `tamis fit --encoder`.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose equal values are one object, seen again.")] = None,
    gold: Annotated[
        list[Path] | None, typer.Option(help="Labeled file that nothing is fitted on. May be repeated.")
    ] = None,
    encoder: Annotated[Literal["mlp", "cnn", "spectratr"], typer.Option(help="Its body.")] = "mlp",
    objective: Annotated[
        Literal["nt-xent", "vicreg", "barlow", "masked"], typer.Option(help="What pretraining minimises.")
    ] = "nt-xent",
    preprocess: Annotated[str, typer.Option(help="What the encoder sees.")] = "snv, savgol 15 2 1",
    augment: Annotated[str, typer.Option(help="Physical augmentations, such as 'scatter 0.05, noise 1e-4'.")] = "",
    steps: Annotated[int, typer.Option(min=1)] = 1_000,
    batch: Annotated[int, typer.Option(min=2, help="Objects a step.")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    checkpoint: Annotated[Path | None, typer.Option(help="Go on from here, if a run was stopped or killed.")] = None,
    store: StoreUrl = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
    config: Config = None,
) -> None:
    """Teach an encoder from unlabeled spectra: best where objects were seen more than once (--group, or object_id).

    \b
    Examples:
      tamis pretrain line.parquet --group sample_id --name default
      tamis pretrain monday.parquet tuesday.parquet --out encoder.safetensors
      torchrun --nproc-per-node 2 -m tamis.streamer.cli pretrain line.parquet --out encoder.safetensors
    """
    if (name is None) == (out is None):
        raise BadSettings("give either --name, a model to improve, or --out, a file for the encoder")
    stop = _Stop()
    settings = _settings(config, store=store)
    _quiet()
    from .service import run_pretrain

    recipe = {
        **{"encoder": encoder, "objective": objective, "preprocess": preprocess, "augment": augment},
        **{"steps": steps, "batch": batch, "seed": seed},
    }
    reading = {"axis_unit": axis_unit, "quantity": quantity, "where": _values(where, "--where")}
    how = {"group": group, "gold": gold or [], "reading": reading, "checkpoint": checkpoint, "stop": stop}
    try:
        passed = run_pretrain(settings, files, recipe, name, out, how)
    except ValueError as error:
        raise BadSettings(str(error)) from error
    if not passed:
        raise typer.Exit(1)


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(help="Spectra with laboratory values: Parquet, CSV or NumPy.")],
    target: Annotated[list[str], typer.Option(help="Column to predict; of texts, its classes. May be repeated.")],
    models: Annotated[
        str | None,
        typer.Option(
            help="Of plsr, local-pls, committee, cnn, spectratr; tamis, tamis-random (committees with encoders); with "
            "--pairs mean-shift, epo, ds, ds-gp, cca, fisher-pls, fisher-gp, weighed, cnn-pairs; of classes pls-da, "
            "committee, cnn, spectratr, each with -self to learn from unlabeled spectra as well; parted by commas. "
            "Else plsr,local-pls,committee, and of classes pls-da,committee."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Column that says cal/train or test/val; else a third.")] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="Of classes: COLUMN=VALUE are the test rows. May be repeated.")
    ] = None,
    hide: Annotated[
        list[str] | None, typer.Option(help="Of classes: one that nobody is taught. May be repeated.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Column whose equal values (repeats) never part.")] = None,
    labels: Annotated[list[int] | None, typer.Option(min=10, help="Few labels, nested. May be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of labels and of networks' starts.")] = 1,
    pairs: Annotated[
        str | None, typer.Option(help="Column of two conditions: labels from the first, test rows of the second.")
    ] = None,
    unlabeled: Annotated[
        list[Path] | None, typer.Option(help="Spectra to pretrain on; else the file's own, less the test objects.")
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="Column whose values, in the file's order, come one after another: test, then train."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every cell to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
) -> None:
    """Fit models side by side on the same rows, and tell who wins by how much.

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
    from .comparing import holds_classes, run_compare, run_compare_classes, run_stream

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
    name: Annotated[str, typer.Argument(help="The model in the store.")],
    file: Annotated[Path, typer.Argument(help="Spectra such as it predicts.")],
    target: Annotated[str | None, typer.Option(help="A target, or a class; else the first one.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the model; the current one where none is named.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts to this file.")] = None,
    store: StoreUrl = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
    config: Config = None,
) -> None:
    """Tell which wavelengths a model's predictions rest on, and what is known to absorb there.

    \b
    Examples:
      tamis explain polymers plastics.parquet --target PVC --where label=PVC --html pvc.html
      tamis explain default meat.csv --axis-unit nm
    """
    from ..models.store import Store
    from .comparing import run_explain

    settings = _settings(config, store=store)
    _quiet()
    reading = {"axis_unit": axis_unit, "quantity": quantity, "where": _values(where, "--where")}
    try:
        run_explain(Store(settings.store), name, version, file, target, reading, html)
    except ValueError as error:
        raise BadSettings(str(error)) from error


@models.command("list")
def models_list(store: StoreUrl = None, config: Config = None) -> None:
    """Every model and version; a star marks what workers serve.

    \b
    Example:
      tamis models list --store /var/lib/tamis/store
    """
    from ..models.store import Store

    opened = Store(_settings(config, store=store).store)
    names = opened.names()
    if not names:
        print(f"no models in {opened.root}; publish one with: tamis fit FILE --target T --store {opened.root}")
    for name in names:
        try:
            current = opened.current(name)
        except TamisError as error:  # the others must still be found: one may be rolled back to
            print(f"! {name}  {error}")
            current = ""
        for version in opened.versions(name):
            star = "*" if version == current else " "
            try:
                manifest = opened.manifest(name, version)
                told = f"{manifest['created']}  {manifest['kind']}  {', '.join(manifest['targets'])}"
            except TamisError as error:
                star, told = "!", str(error)
            print(f"{star} {name} {version}  {told}")


@models.command("show")
def models_show(
    name: str,
    version: Annotated[str | None, typer.Argument(help="The current one where none is named.")] = None,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """A version's manifest, its checksums verified.

    \b
    Example:
      tamis models show glucose v0002
    """
    import json

    from ..models.store import Store

    opened = Store(_settings(config, store=store).store)
    _, version = opened.load(name, version)
    manifest = opened.manifest(name, version)
    grid = manifest["grid"]["values"]
    manifest["grid"] = f"{grid[0]:g}-{grid[-1]:g} {manifest['grid']['unit']}, {len(grid)} bands"
    print(json.dumps(manifest, indent=2))


@models.command("rollback")
def models_rollback(
    name: str,
    to: Annotated[str | None, typer.Option(help="A version; its parent where none is named.")] = None,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """Make an older version current; workers swap to it within seconds.

    \b
    Examples:
      tamis models rollback glucose
      tamis models rollback glucose --to v0001
    """
    from ..models.store import Store

    opened = Store(_settings(config, store=store).store)
    before = opened.current(name)
    print(f"{name}: {before} -> {opened.rollback(name, to)}")


@models.command("promote")
def models_promote(name: str, version: str, store: StoreUrl = None, config: Config = None) -> None:
    """Make any version current, such as a candidate that waits for you; workers swap to it within seconds.

    \b
    Example:
      tamis models promote glucose v0003
    """
    from ..models.store import Store

    opened = Store(_settings(config, store=store).store)
    before = opened.current(name)
    opened.promote(name, version)
    print(f"{name}: {before} -> {version}")


@app.command()
def trainer(config: Config = None, brokers: Brokers = None, store: StoreUrl = None) -> None:
    """Keep a model up to date from the stream and the laboratory, until stopped: learn, judge, publish.

    \b
    Examples:
      tamis trainer --config line.toml
      TAMIS_TRAINER__MODEL=glucose TAMIS_TRAINER__LABEL_SPAN_S=600 tamis trainer
    """
    stop = _Stop()
    import structlog

    from .monitoring.logs import configure

    settings = _settings(config, brokers=brokers, store=store)
    configure(settings.log)
    from .service import run_trainer

    try:
        run_trainer(settings, stop)
    except TamisError as error:
        structlog.get_logger().critical("trainer ended", error=str(error), kind=type(error).__name__)
        raise typer.Exit(_exit_status(error)) from error


@app.command()
def worker(
    config: Config = None,
    brokers: Brokers = None,
    store: StoreUrl = None,
    source: Annotated[Path | None, typer.Option("--from", help="Read a recorded file instead of Kafka.")] = None,
    sink: Annotated[Path | None, typer.Option("--to", help="Write into this folder instead of Kafka.")] = None,
    line: Annotated[str | None, typer.Option(help="With --from: the line, whatever the file says.")] = None,
    white: White = None,
    dark: Dark = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
) -> None:
    """Predict what arrives on the line, until stopped (SIGTERM or Ctrl-C finishes the frames in hand).

    \b
    Examples:
      tamis worker --config line.toml
      TAMIS_BROKERS=kafka:9092 TAMIS_PREDICTIONS__ENCODING=json tamis worker
      tamis worker --from tablets.parquet --to out/
    """
    stop = _Stop()
    from .blas import set_up_blas

    set_up_blas()
    import structlog

    from .monitoring.logs import configure

    settings = _settings(config, brokers=brokers, store=store)
    configure(settings.log)
    from .service import run_worker

    reading = {"line": line, "where": _values(where, "--where"), "axis_unit": axis_unit, "quantity": quantity}
    reading["reference"] = _reference(white, dark)
    try:
        run_worker(settings, stop, source, sink, reading)
    except TamisError as error:  # the log has it too, in its own form: that is what a supervisor keeps
        structlog.get_logger().critical("worker ended", error=str(error), kind=type(error).__name__)
        raise typer.Exit(_exit_status(error)) from error


@app.command()
def tail(
    rejects: Annotated[bool, typer.Option("--rejects", help="What was set aside, and why.")] = False,
    decisions: Annotated[bool, typer.Option("--decisions", help="What was decided, one an object.")] = False,
    new_only: Annotated[bool, typer.Option("--new", help="Only what comes from now on.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    config: Config = None,
    brokers: Brokers = None,
) -> None:
    """Print predictions as they come back, one JSON object a spectrum, whatever their encoding.

    \b
    Examples:
      tamis tail --new
      tamis tail --limit 5 | jq .glucose
      tamis tail --rejects
      tamis tail --decisions --new | jq -r '[.object_id, .action, .reason] | @tsv'
    """
    if rejects and decisions:
        raise BadSettings("--rejects and --decisions exclude each other: give one")
    stop = _Stop()
    settings = _settings(config, brokers=brokers)
    _quiet()
    from .service import run_tail

    topics = settings.topics
    topic = topics.rejects if rejects else topics.decisions if decisions else topics.predictions
    run_tail(settings, stop, topic, new_only, limit)


@app.command()
def top(
    url: Annotated[
        list[str] | None, typer.Option(help="http://host:port of a worker or trainer; else those of the settings.")
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one screen and end.")] = False,
    config: Config = None,
) -> None:
    """Watch the line in the terminal: pace, trust, drift, lag, model, trainer. For the box without Grafana.

    \b
    Examples:
      tamis top
      tamis top --once --url http://127.0.0.1:9108
    """
    stop = _Stop()
    for one in url or []:
        if not one.startswith(("http://", "https://")):
            raise BadSettings(f"--url expects http://host:port, got {one!r}")
    if not url:
        settings = _settings(config)
        host = "127.0.0.1" if settings.metrics.host in ("0.0.0.0", "::") else settings.metrics.host  # noqa: S104
        url = [f"http://{host}:{port}" for port in (settings.metrics.port, settings.trainer.metrics_port)]
    from .tools.top import run_top

    if not run_top([one.rstrip("/") for one in url], every, once, stop):
        raise typer.Exit(1)


@drift.command("list")
def drift_list(config: Config = None) -> None:
    """The lines that have a reference, learned or still learning, and when it was last added to.

    \b
    Example:
      tamis drift list --config line.toml
    """
    from datetime import UTC, datetime

    from .watch import references

    folder = Path(_settings(config).drift.folder)
    found = references(folder)
    if not found:
        print(f"no references in {folder}; a worker keeps one for each line once it has learned it")
    for line, path in sorted(found.items()):
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        print(f"{line}  {since}  {path}")


@drift.command("forget")
def drift_forget(
    line: Annotated[str, typer.Argument(help="As `tamis drift list` names it.")], config: Config = None
) -> None:
    """Let a line learn a new reference, after a change that is meant to stay: a new lamp, a new product.

    \b
    Example:
      tamis drift forget nir1
    """
    from .watch import references

    folder = Path(_settings(config).drift.folder)
    found = references(folder)
    if line not in found:
        raise BadSettings(f"no reference of line {line!r} in {folder}; there: {', '.join(sorted(found)) or 'none'}")
    found[line].unlink()
    print(f"{line}: reference forgotten; the worker learns another from its next spectra")


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(help="Recorded files: Parquet, CSV or NumPy, .gz or .zst too.")],
    rate: Annotated[
        float | None, typer.Option(min=1e-3, max=1e9, help="Spectra a second; else as fast as it goes.")
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Keep the recorded distances in time.")] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many spectra.")] = None,
    resume: Annotated[str | None, typer.Option(help="A name: go on where the replay of that name stopped.")] = None,
    frame: Annotated[
        int | None, typer.Option(min=1, help="Spectra a message: 256, or 0.1 s at --rate; of a cube in whole lines.")
    ] = None,
    line: Annotated[str | None, typer.Option(help="Line to replay as; else the file's own, or 'unknown'.")] = None,
    instrument: Annotated[str | None, typer.Option(help="Instrument, whatever the file says.")] = None,
    encoding: Annotated[Literal["arrow", "raw", "json"], typer.Option(help="raw carries no ids or times.")] = "arrow",
    sent_as: Annotated[
        Literal["white", "dark"] | None, typer.Option("--as", help="A reference of the line's camera, not spectra.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Draw the belt, as workers tell of it meanwhile, into this HTML file.")
    ] = None,
    white: White = None,
    dark: Dark = None,
    where: Where = None,
    axis_unit: AxisUnit = None,
    quantity: Quantity = None,
    config: Config = None,
    brokers: Brokers = None,
) -> None:
    """Send recorded files down the line as if they were measured now, or a reference of its camera.

    \b
    Examples:
      tamis replay tablets.parquet --line nir1 --rate 500
      tamis replay monday.csv.gz tuesday.csv.gz --axis-unit nm --realtime
      tamis replay line.parquet --loop --limit 1000000
      tamis replay cube.hdr --white white.hdr --dark dark.hdr --rate 96000
      tamis replay cube.hdr --rate 5760 --line belt --report belt.html
      tamis replay white.hdr --as white --line belt --quantity counts
    """
    if rate is not None and realtime:
        raise BadSettings("--rate and --realtime exclude each other: give one")
    if resume is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", resume):
        raise BadSettings(f"--resume: expected a name of letters, digits, '.', '_' and '-', got {resume[:40]!r}")
    stop = _Stop()
    settings = _settings(config, brokers=brokers)
    _quiet()
    from .service import run_replay

    reading = {
        "frame_spectra": frame or (256 if rate is None else max(1, min(256, round(rate / 10)))),
        "line": line,
        "instrument": instrument,
        "axis_unit": axis_unit,
        "quantity": quantity,
        "where": _values(where, "--where"),
        "reference": _reference(white, dark),
    }
    how = {"rate": rate, "realtime": realtime, "loop": loop, "limit": limit, "resume": resume,
           "sent_as": sent_as or "", "reading": reading}  # fmt: skip
    if report is None:
        print(_told(run_replay(settings, stop, files, encoding, how), rate))
        return
    from .belt import MOST_LINES, Belt
    from .records import read_frames
    from .tools.view import following, refuse_unwritable, settle, write_belt

    refuse_unwritable(report)
    if line is None:  # others may run meanwhile
        line = next((frame.line for frame in read_frames(files[0], **reading)), None)
    belt = Belt(line, MOST_LINES)
    with following(settings, belt) as trouble:
        told = _told(run_replay(settings, stop, files, encoding, how), rate)
        print(told, flush=True)
        settle(belt, stop)
        if trouble():
            print(f"the report may be short: {trouble()}", file=sys.stderr)
    write_belt(belt, report, f"Belt: {', '.join(path.name for path in files)}", f"{told}.")
    seen = f"{belt.decided} objects decided" if belt.decided else f"{belt.spectra} predictions, no decisions"
    hint = (
        ""
        if belt.spectra
        else "; does a worker run, and know this line? `tamis tail --rejects` tells what it set aside"
    )
    print(f"{report}: {seen}{hint}")


def _told(sent: Any, rate: float | None) -> str:
    per_s = sent.spectra / max(sent.seconds, 1e-9)
    after = f"; {sent.before} were there already" if sent.before else ""
    if rate is not None and sent.seconds > 1 and per_s < 0.9 * rate:
        after += f"; slower than the {rate:g} that were asked for"
    return f"sent {sent.spectra} spectra in {sent.frames} frames, {sent.seconds:.1f} s, {per_s:.0f} spectra/s{after}"


@app.command()
def view(
    line: Annotated[str | None, typer.Option(help="The line to watch; else the first one that is heard.")] = None,
    lines: Annotated[int, typer.Option(min=50, max=12_000, help="Camera lines that are shown.")] = 900,
    host: Annotated[str, typer.Option(help="Loopback unless asked: the page tells much about a plant.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 9110,
    config: Config = None,
    brokers: Brokers = None,
) -> None:
    """Show the belt in a browser while it runs: what lies on it, what was decided, and how late.

    \b
    Example:
      tamis view --line belt
    """
    stop = _Stop()
    settings = _settings(config, brokers=brokers)
    _quiet()
    from .tools.view import run_view

    run_view(settings, stop, line, lines, host, port)


@app.command()
def simulate(
    out: Annotated[Path | None, typer.Argument(help="A .parquet or .hdr file to write; without one, Kafka.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="How long the belt runs.")] = 10.0,
    materials: Annotated[
        Path | None, typer.Option(help="A file of their spectra, or earthlib; else some polymers of ours.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Its column that names them: label, or earthlib's LEVEL_2.")] = None,
    pixels: Annotated[int, typer.Option(help="Across the belt.")] = 320,
    lines: Annotated[float, typer.Option(help="Of the camera, a second.")] = 300.0,
    objects: Annotated[float, typer.Option(help="That come, a second.")] = 20.0,
    size: Annotated[float, typer.Option(help="Of an object, in pixels.")] = 24.0,
    new: Annotated[list[str] | None, typer.Option(help="MATERIAL=SECOND: not before that. May be repeated.")] = None,
    noise: Annotated[float, typer.Option(help="sd of reflectance.")] = 0.003,
    lamp: Annotated[float, typer.Option(help="Share of its light that the lamp loses in an hour.")] = 0.0,
    shift: Annotated[float, typer.Option(help="Drift of the wavelengths, nm an hour.")] = 0.0,
    whole: Annotated[bool, typer.Option("--whole", help="The empty belt's pixels too.")] = False,
    counts: Annotated[
        bool, typer.Option("--counts", help="A cube of counts, and its NAME.white.hdr and NAME.dark.hdr.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Camera lines a message.")] = 8,
    truth: Annotated[Path | None, typer.Option(help="Write the objects and their materials to this CSV.")] = None,
    line: Annotated[str, typer.Option(help="Its name.")] = "belt",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    config: Config = None,
    brokers: Brokers = None,
) -> None:
    """Simulate a belt of objects under a line camera, to a file or at the camera's pace to Kafka.

    \b
    Examples:
      tamis simulate belt.parquet --seconds 20 && tamis fit belt.parquet --target material --group object_id
      tamis simulate --seconds 600 --truth truth.csv --lamp 0.1 --new PVC=300
      tamis simulate belt.parquet --materials plastics.parquet --label label --pixels 64 --lines 50
      tamis simulate belt.parquet --materials earthlib --label LEVEL_3 --seconds 20
      tamis simulate cube.hdr --seconds 5 --counts
    """
    from dataclasses import replace

    from ..models.axis import Axis
    from .records import read_table, write_parquet
    from .simulate import Belt, Sensor, earthlib_materials, library_of, write_truth

    if counts and (out is None or out.suffix != ".hdr"):
        raise BadSettings("--counts is of a cube: name a .hdr file to write")
    stop = _Stop()
    settings = _settings(config, brokers=brokers)
    _quiet()
    try:
        come = {name: float(at_s) for name, at_s in _pairs(new, "--new").items()}
        more: dict[str, Any] = {}
        if materials is not None and str(materials) == "earthlib" and not materials.exists():
            library, axis = earthlib_materials(label or "LEVEL_2")
            more = {"materials": library, "axis": axis}
        elif materials is not None:
            table = read_table(materials)
            more = {"materials": library_of(table, label or "label"), "axis": Axis(table.axis.values, table.axis.unit)}
        belt = Belt(
            pixels=pixels, lines_per_s=lines, objects_per_s=objects, size_px=size, new=come, noise=noise,
            lamp_per_h=lamp, shift_nm_per_h=shift, foreground=not whole, line=line, seed=seed, **more,
        )  # fmt: skip
    except ValueError as error:
        raise BadSettings(str(error)) from error
    things = belt.objects(seconds)
    if len(things) < 0.6 * round(seconds * objects):  # said before the minutes that it takes
        print(
            f"{len(things)} of {round(seconds * objects)} objects: no more find room side by side on {pixels} pixels; "
            "more of them with --pixels or --lines, or a smaller --size",
            file=sys.stderr,
        )
    if out is None:
        from .service import run_simulate

        sent = run_simulate(settings, stop, belt, seconds, batch, truth)
        behind = f"; up to {sent.behind_s:.2f} s behind the camera" if sent.behind_s > 0.5 else ""
        print(f"sent {sent.spectra} spectra in {sent.frames} frames, {sent.seconds:.1f} s{behind}")
        return
    import numpy as np

    made = {thing.number: thing.material for thing in things}
    held = f"{len(made)} objects, {', '.join(sorted(set(made.values())))}"
    start = np.datetime64("2026-01-01T00:00:00", "us")
    if out.suffix == ".hdr":
        from .cube import write_envi

        whole_belt, nm = replace(belt, foreground=False).frames(seconds, start, 1), belt.axis.to("nm").values
        if counts:
            sensor = Sensor(belt)
            count = write_envi(out, map(sensor.counts, whole_belt), nm, "counts")
            for name, reference in (("white", sensor.white), ("dark", sensor.dark)):
                write_envi(out.with_suffix(f".{name}.hdr"), iter([reference]), nm, "counts")
        else:
            count = write_envi(out, (frame.spectra for frame in whole_belt), nm, "reflectance")
        if truth is not None:
            write_truth(truth, belt, seconds, start)
        print(f"{out}: {count} lines of {belt.pixels} pixels, {len(belt.axis)} bands; {held}")
        return
    frames = (frame for frame in belt.frames(seconds, start, batch) if len(frame))
    count = write_parquet(out, frames, lambda frame: {"material": [made.get(n, "") for n in frame.object_id or []]})
    if truth is not None:
        write_truth(truth, belt, seconds, start)
    print(f"{out}: {count} spectra of {held}")


@app.command()
def broker(
    kind: Annotated[
        Literal["noida", "tansu"], typer.Option(help="noida joins at once and speaks to kcat; tansu fails over.")
    ] = "noida",
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0 takes any free one.")] = 9092,
) -> None:
    """Run the embedded broker in the foreground: real Kafka protocol, nothing kept, for trials and tests only.

    Exactly-once shows on it only in part: what a killed replay left in a transaction may hide what it sends later.

    \b
    Example:
      tamis broker --port 9092
    """
    stop = _Stop()
    from .broker import EmbeddedBroker

    with EmbeddedBroker(kind, port) as running:
        print(f"{kind} broker on {running.bootstrap}; Ctrl-C stops it, and its data go with it", flush=True)
        stop.wait(while_true=running.is_running)
        if not stop():
            raise BrokerAbsent(f"the {kind} broker on {running.bootstrap} ended by itself; its data are gone")
        running.kill()  # nothing of it is kept: until it had written its data it would take messages for nobody
    print("broker stopped", flush=True)


@app.command()
def doctor(config: Config = None, brokers: Brokers = None, store: StoreUrl = None) -> None:
    """Check settings, broker, topics, store and models, and say what to do. Exits 1 where something is wrong.

    \b
    Example:
      tamis doctor --config line.toml
    """
    from .doctor import examine

    settings = _settings(config, brokers=brokers, store=store)
    _quiet()
    findings = examine(settings)
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the store and the worker's log.")] = Path("demo"),
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    rate: Annotated[float, typer.Option(min=1.0, max=1e9, help="Spectra a second.")] = 200.0,
    learn: Annotated[
        bool, typer.Option("--learn", help="Laboratory values arrive an hour late, and are learned.")
    ] = False,
) -> None:
    """Follow a real fermentation: fit, replay through Kafka, predict in a worker process, compare with HPLC.

    \b
    Examples:
      tamis demo
      tamis demo --learn
      tamis demo --rate 1000 --json figures.json
    """
    stop = _Stop()
    _quiet()
    if learn:
        from .demo_learn import run_learning_demo

        if not run_learning_demo(out, json, stop):
            raise typer.Exit(1)
        return
    from .demo import run_demo

    if not run_demo(out, json, rate, stop):
        raise typer.Exit(1)


def _exit_status(error: TamisError) -> int:
    """What a supervisor goes by: 2 and 4 need a person, after the others it starts the process again."""
    return {BadSettings: 2, Fenced: 3, TooManyRejects: 4, Stalled: 75}.get(type(error), 1)


def _encoder(path: Path | None) -> Any:
    if path is None:
        return None
    from ..models.encoder import Encoder

    return Encoder.load(path)


class _Stop:
    """Set by SIGTERM or SIGINT; a second one ends the process. Made before slow imports, lest a signal be missed."""

    def __init__(self) -> None:
        self.asked = False
        self.on_stop: list[Any] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take)

    def _take(self, number: int, _frame: object) -> None:
        if self.asked:
            sys.exit(128 + number)
        self.asked = True
        for call in self.on_stop:
            call()

    def __call__(self) -> bool:
        return self.asked

    def wait(self, while_true: Any) -> None:
        import time

        while not self.asked and while_true():
            time.sleep(0.1)


def _settings(config: Path | None, **overrides: Any) -> Settings:
    from .settings import load

    return load(config, overrides)


def _quiet() -> None:
    """A command at a terminal tells its own story: of the log, only what went wrong."""
    from .monitoring.logs import configure
    from .settings import Log

    configure(Log(format="text", level="warning"))


def _reference(white: Path | None, dark: Path | None) -> Any:
    if white is None:
        if dark is not None:
            raise BadSettings("--dark needs --white: reflectance is measured between the two")
        return None
    from .cube import Reflectance

    return Reflectance.of_files(str(white), None if dark is None else str(dark))


def _values(given: list[str] | None, option: str) -> dict[str, list[str]]:
    """As `_pairs`, but a name may have several values."""
    values: dict[str, list[str]] = {}
    for item in given or []:
        for key, value in _pairs([item], option).items():
            values.setdefault(key, []).append(value)
    return values


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise BadSettings(f"{option} expects NAME=VALUE, got {item!r}")
        pairs[key] = value
    return pairs


if __name__ == "__main__":
    main()
