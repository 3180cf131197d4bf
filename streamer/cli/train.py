"""`tamis fit` and `tamis pretrain`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from ... import BadFile, BadSettings
from ..services.stop import Stop
from .options import FileOptions, StoreOptions, command, new_app, pairs

if TYPE_CHECKING:
    from ...models.encoder import Encoder
    from ..fitting.fit import FitResult
    from ..fitting.pretrain import Pretrained

app = new_app()


@command(app)
def fit(
    file: Annotated[Path, Argument(help="Spectra with laboratory values: Parquet, CSV or NumPy.")],
    target: Annotated[list[str], Option(help="Column to predict: numbers or classes. May be repeated.")],
    *,
    model: Annotated[str, Option(help="plsr (classes: PLS-DA), local-pls, committee, cnn, spectratr.")] = "plsr",
    name: Annotated[str, Option(help="The model's name in the store.")] = "default",
    preprocess: Annotated[
        str | None, Option(help="Pre-treatments; default 'snv, savgol 15 2 1' or the model's own.")
    ] = None,
    components: Annotated[int | None, Option(help="Latent variables; cross-validated if not given (plsr).")] = None,
    epochs: Annotated[int | None, Option(help="At most this many epochs (cnn, spectratr).")] = None,
    seed: Annotated[int, Option(help="Random seed of folds, splits and weights.")] = 0,
    labels: Annotated[Path | None, Option(help="A CSV with the targets, by row or by spectrum_id.")] = None,
    group: Annotated[str | None, Option(help="Column that names the sample; equal values are repeats.")] = None,
    unit: Annotated[list[str] | None, Option(help="TARGET=UNIT, such as glucose=g/L. May be repeated.")] = None,
    encoder: Annotated[Path | None, Option(help="From `tamis pretrain --out`, for a committee.")] = None,
    file_options: FileOptions,
    store_options: StoreOptions,
) -> None:
    """Fit a model on a recorded file and publish it. The new version becomes the current one.

    \b
    Examples:
      tamis fit tablets.parquet --target assay --where instrument=1 --name tablets
      tamis fit meat.csv --axis-unit nm --target fat --target water --preprocess 'snv, savgol 11 2 2'
      tamis fit soil.parquet --target organic_c --model cnn --seed 1
      tamis fit plastics.parquet --target label --group item --name polymers
      tamis fit tablets.parquet --target assay --model committee --encoder tablets.safetensors
    """
    from ...models.store import Store
    from ..fitting.fit import FitOptions, fit_and_publish

    settings = store_options.settings()
    if sys.stderr.isatty():
        print(f"fitting {model} on {file} ...", file=sys.stderr)
    try:
        with _bar(model) as bar:
            options = FitOptions(
                targets=target,
                kind=model,
                name=name,
                preprocess=preprocess,
                n_components=components,
                epochs=epochs,
                random_state=seed,
                units=pairs(unit, "--unit"),
                labels=labels,
                group=group,
                encoder=_encoder(encoder),
                reading=file_options.reading(),
                progress=lambda share, error: bar(share, f"held-out error {error:.3f} sd²"),
            )
            done = fit_and_publish(file, options, Store(settings.store))
    except ValueError as error:  # a parameter that does not suit these data; the text says which
        raise BadSettings(str(error)) from error
    _print_fit(name, done)
    print(f"  store: {settings.store}")


def _encoder(path: Path | None) -> Encoder | None:
    if path is None:
        return None
    from ...models.encoder import Encoder  # imports torch

    return Encoder.load(path)


def _print_fit(name: str, done: FitResult) -> None:
    model, metrics = done.model, done.metrics
    treated = str(model.pipeline) or "no pre-treatment"
    print(f"{name} {done.version}: {model.kind} on {model.training['spectra']} spectra, {model.grid}; {treated}")
    if done.dropped:
        print(f"  {done.dropped} rows left out: no value, or a spectrum that is not finite")
    if "latent_variables" in metrics:
        print(f"  latent variables: {metrics['latent_variables']}")
    if unseen := metrics.get("out_of_fold"):
        print(f"  out of fold: balanced accuracy {unseen['balanced_accuracy']:.3f}, unknown {unseen['unknown']:.1%}")
        width = max(map(len, unseen["purity"]))
        for label, purity in unseen["purity"].items():
            print(f"  {label:<{width}}  purity {purity:.3f}  recovery {unseen['recovery'][label]:.3f}")
    for key, rmsec in metrics.get("rmsec", {}).items():
        validated = metrics.get("rmsecv", {}).get(key)
        also = "" if validated is None else f", RMSECV {validated:.4g}"
        print(f"  {key}: RMSEC {rmsec:.4g}{also} {model.units.get(key, '')}".rstrip())


@command(app)
def pretrain(
    files: Annotated[list[Path], Argument(help="Recorded spectra; laboratory values in them are ignored.")],
    *,
    name: Annotated[str | None, Option(help="Model to improve; published if it passes the gate.")] = None,
    out: Annotated[Path | None, Option(help="Write the encoder to this file, for `tamis fit --encoder`.")] = None,
    group: Annotated[str | None, Option(help="Column that names the object, to pair its spectra.")] = None,
    gold: Annotated[list[Path] | None, Option(help="Labeled file, for testing only. May be repeated.")] = None,
    encoder: Annotated[Literal["mlp", "cnn", "spectratr"], Option(help="The encoder's network.")] = "mlp",
    objective: Annotated[Literal["nt-xent", "vicreg", "barlow", "masked"], Option(help="The loss.")] = "nt-xent",
    preprocess: Annotated[str, Option(help="Pre-treatments before the encoder.")] = "snv, savgol 15 2 1",
    augment: Annotated[str, Option(help="Physical augmentations, such as 'scatter 0.05, noise 1e-4'.")] = "",
    steps: Annotated[int, Option(min=1, help="Training steps.")] = 1_000,
    batch: Annotated[int, Option(min=2, help="Objects per step.")] = 128,
    seed: Annotated[int, Option(min=0, help="Random seed.")] = 0,
    checkpoint: Annotated[Path | None, Option(help="Continue from this file if a run was stopped.")] = None,
    file_options: FileOptions,
    store_options: StoreOptions,
) -> None:
    """Pretrain an encoder on unlabeled spectra. Works best if objects were measured more than once (--group, or a
    column object_id).

    \b
    Examples:
      tamis pretrain line.parquet --group sample_id --name default
      tamis pretrain monday.parquet tuesday.parquet --out encoder.safetensors
      torchrun --nproc-per-node 2 -m tamis.streamer.cli pretrain line.parquet --out encoder.safetensors
    """
    if (name is None) == (out is None):
        raise BadSettings("give either --name, a model to improve, or --out, a file for the encoder")
    stop = Stop()
    settings = store_options.settings()
    for path in (out, checkpoint):  # checked before the work
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise BadFile(f"{path}: expected a file to write, in a folder that exists")
    from ...models.store import Store
    from ...ssl.pretrain import Interrupted, Recipe
    from ..fitting.pretrain import PretrainOptions, pretrain_files

    try:
        options = PretrainOptions(
            recipe=Recipe(encoder, preprocess, objective, augment, steps=steps, batch=batch, seed=seed),
            name=name,
            group=group,
            gold=gold or [],
            checkpoint=checkpoint,
            reading=file_options.reading(),
        )
        with _bar("pretraining") as bar:
            done = pretrain_files(
                files,
                options,
                Store(settings.store),
                progress=lambda step, loss: bar((step + 1) / steps, f"loss {loss:.3f}"),
                stop=stop,
            )
    except ValueError as error:
        raise BadSettings(str(error)) from error
    except Interrupted as error:
        print(f"{error}; --checkpoint continues from there" if checkpoint else str(error))
        raise typer.Exit(1) from error
    if done.verdict is not None:
        for check in done.verdict.checks:
            print(f"{'ok    ' if check.passed else 'FAIL  '} {check.name}: {check.finding}")
        print(f"{name} {done.version}: published" if done.version else f"{name}: refused; {done.verdict.reason}")
        if done.version is None:
            raise typer.Exit(1)
    elif out is not None and int(os.environ.get("RANK", "0")) == 0:
        _write_encoder(done, out)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar in the terminal; yields what moves it: the share done, and a text about it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=1.0, visible=False)
        yield lambda share, about: bar.update(task, completed=share, visible=True, description=f"{what}, {about}")


def _write_encoder(done: Pretrained, path: Path) -> None:
    encoder, health = done.encoder, done.health
    assert health is not None
    encoder.save(path)
    print(
        f"{path}: {encoder.kind} on {encoder.grid}, {encoder.width} features; loss {health.loss:.3f}, "
        f"effective rank {health.rankme:.1f}, alignment {health.alignment:.3f}, uniformity {health.uniformity:.2f}"
    )
