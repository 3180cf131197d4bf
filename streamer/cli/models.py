"""`tamis models`: the model store, its stages and its log."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ... import BadSettings, TamisError
from .options import StoreOptions, command, new_app, refusing, tell

app = new_app(help="Models: list, compare, promote, roll back, history, export.")

Name = Annotated[str, Argument(help="The model's name in the store.")]
Why = Annotated[str, Option(help="A sentence for the log.")]


@command(app, "list")
def list_models(store_options: StoreOptions) -> None:
    """List every version with its stage; * marks the current one.

    \b
    Example:
      tamis models list --store /var/lib/tamis/store
    """
    store = store_options.open()
    names = store.names()
    if not names:
        print(f"no models in {store.root}; publish one with: tamis fit FILE --target T --store {store.root}")
    for name in names:
        log = None
        try:
            store.current(name)
            log = store.log(name)
        except TamisError as error:  # list the others all the same: one may be needed for a rollback
            print(f"! {name}  {error}")
        for version in store.versions(name):
            stage = "" if log is None else log.stage(version)
            star = "*" if stage == "current" else " "
            try:
                manifest = store.manifest(name, version)
                about = f"{manifest['created']}  {manifest['kind']}  {', '.join(manifest['targets'])}"
            except TamisError as error:
                star, about = "!", str(error)
            print(f"{star} {name} {version}  {stage:<9}  {about}")


@command(app)
def show(
    name: Name,
    version: Annotated[str | None, Argument(help="The current version if not given.")] = None,
    *,
    store_options: StoreOptions,
) -> None:
    """Show and verify a version: its manifest, stage and verdict.

    \b
    Example:
      tamis models show glucose v0002
    """
    import json

    from ..tools.versions import about, axis

    store = store_options.open()
    version = version or store.current(name)
    store.serve(name, version)
    manifest = store.manifest(name, version)
    print(json.dumps(manifest | {"stage": store.stage(name, version), "grid": axis(manifest)}, indent=2), flush=True)
    for line in about(store, name, version):
        tell(line)


@command(app)
def diff(
    name: Name,
    one: Annotated[str, Argument(help="Such as v0002.")],
    other: Annotated[str | None, Argument(help="The current version if not given.")] = None,
    *,
    store_options: StoreOptions,
) -> None:
    """Say in what two versions differ: recipe, data, limits, figures.

    \b
    Example:
      tamis models diff glucose v0001 v0002
    """
    from ..tools.versions import differences

    store = store_options.open()
    for line in differences(store, name, one, other or store.current(name)):
        print(line)


@command(app)
def history(name: Name, store_options: StoreOptions) -> None:
    """List what happened to a model: when, by whom and why.

    \b
    Example:
      tamis models history glucose
    """
    from ..tools.versions import history as lines

    for line in lines(store_options.open(), name):
        print(line)


@command(app)
def when(
    time: Annotated[str, Argument(help="Such as 2026-11-03T10:00 (UTC), or with an offset: 2026-11-03T10:00+01:00.")],
    *,
    name: Annotated[str, Option(help="The model's name in the store.")] = "default",
    store_options: StoreOptions,
) -> None:
    """Say which version was current at a time, and its training.

    \b
    Example:
      tamis models when 2026-11-03T10:00 --name glucose
    """
    from ..tools.versions import current_at

    try:
        moment = datetime.fromisoformat(time)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadSettings(f"expected a time such as 2026-11-03T10:00, got {time[:40]!r}") from error
    if moment > datetime.now(UTC):
        raise BadSettings(f"{moment:%Y-%m-%d %H:%M} UTC is still to come")
    for line in current_at(store_options.open(), name, moment):
        print(line)


@command(app)
def rollback(
    name: Name,
    to: Annotated[str | None, Option(help="A version; the one that was current before if not given.")] = None,
    why: Why = "",
    *,
    store_options: StoreOptions,
) -> None:
    """Make an older version current. Workers load it within seconds.

    \b
    Examples:
      tamis models rollback glucose --why "reads 2 g/L too high since the lamp was changed"
      tamis models rollback glucose --to v0001
    """
    store = store_options.open()
    print(f"{name}: {store.current(name)} -> {store.rollback(name, to, by='tamis models rollback', why=why)}")


@command(app)
def promote(
    name: Name,
    version: Annotated[str, Argument(help="Such as v0003.")],
    why: Why = "",
    *,
    store_options: StoreOptions,
) -> None:
    """Make any version current, such as a waiting candidate. Workers load it within seconds.

    \b
    Example:
      tamis models promote glucose v0003
    """
    store = store_options.open()
    before = store.current(name)
    store.promote(name, version, by="tamis models promote", why=why)
    print(f"{name}: {before} -> {version}")


@command(app)
def export(
    name: Name,
    version: Annotated[str | None, Option(help="Such as v0003; default: the current one.")] = None,
    onnx: Annotated[Path | None, Option(help="An ONNX file: pre-treatment, values or classes, T2, Q.")] = None,
    csv: Annotated[Path | None, Option(help="Regression coefficients of a linear model, with the axis.")] = None,
    instrument: Annotated[str, Option(help="Whose spectra it will get; default: those it was fitted on.")] = "",
    *,
    store_options: StoreOptions,
) -> None:
    """Write a model for programs without Tamis.

    \b
    Examples:
      tamis models export protein --onnx protein.onnx
      tamis models export protein --version v0003 --csv protein.csv
    """
    from ..tools.export import export as write

    written = " and ".join(str(path) for path in (onnx, csv) if path is not None)
    print(f"{name} {write(store_options.open(), name, version, onnx, csv, instrument)}: written to {written}")


@command(app)
def prune(
    name: Name,
    keep: Annotated[int, Option(min=1, help="The newest versions that stay.")],
    *,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    store_options: StoreOptions,
) -> None:
    """Delete old versions that nothing needs.

    The current one stays, with the one that a rollback makes current and the one that it was judged against; and a
    version in shadow, with the one that it is compared with.

    \b
    Examples:
      tamis models prune glucose --keep 10 --dry-run
      tamis models prune glucose --keep 10
    """
    from ...models.prune import pruning

    store = store_options.open()
    plan = pruning(store, name, keep)
    for version, why in plan.kept.items():
        print(f"  kept {version}: {why}")
    for version, size in plan.surplus.items():
        if not dry_run:
            with refusing():
                store.delete(name, version, by="tamis models prune", why=f"not among what --keep {keep} keeps")
        print(f"  {'would delete' if dry_run else 'deleted'} {version}, {size} bytes")
    versions = "1 version" if len(plan.surplus) == 1 else f"{len(plan.surplus)} versions"
    verb = "would be deleted" if dry_run else "deleted"
    print(f"{name}: {versions} {verb}, {sum(plan.surplus.values())} bytes")
