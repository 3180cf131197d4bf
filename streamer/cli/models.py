"""`tamis models`: the model store."""

from typing import Annotated

from typer import Argument, Option

from ... import TamisError
from .options import StoreOptions, command, new_app

app = new_app(help="List models, show versions, promote and roll back.")

Name = Annotated[str, Argument(help="The model's name in the store.")]


@command(app, "list")
def list_models(store_options: StoreOptions) -> None:
    """List every model and version; * marks the current one.

    \b
    Example:
      tamis models list --store /var/lib/tamis/store
    """
    store = store_options.open()
    names = store.names()
    if not names:
        print(f"no models in {store.root}; publish one with: tamis fit FILE --target T --store {store.root}")
    for name in names:
        try:
            current = store.current(name)
        except TamisError as error:  # list the others all the same: one may be needed for a rollback
            print(f"! {name}  {error}")
            current = ""
        for version in store.versions(name):
            star = "*" if version == current else " "
            try:
                manifest = store.manifest(name, version)
                about = f"{manifest['created']}  {manifest['kind']}  {', '.join(manifest['targets'])}"
            except TamisError as error:
                star, about = "!", str(error)
            print(f"{star} {name} {version}  {about}")


@command(app)
def show(
    name: Name,
    version: Annotated[str | None, Argument(help="The current version if not given.")] = None,
    *,
    store_options: StoreOptions,
) -> None:
    """Show the manifest of a version and verify its checksums.

    \b
    Example:
      tamis models show glucose v0002
    """
    import json

    store = store_options.open()
    version = version or store.current(name)
    store.serve(name, version)
    manifest = store.manifest(name, version)
    grid = manifest["grid"]["values"]
    manifest["grid"] = f"{grid[0]:g}-{grid[-1]:g} {manifest['grid']['unit']}, {len(grid)} bands"
    print(json.dumps(manifest, indent=2))


@command(app)
def rollback(
    name: Name,
    to: Annotated[str | None, Option(help="A version; the current one's parent if not given.")] = None,
    *,
    store_options: StoreOptions,
) -> None:
    """Make an older version current. Workers load it within seconds.

    \b
    Examples:
      tamis models rollback glucose
      tamis models rollback glucose --to v0001
    """
    store = store_options.open()
    print(f"{name}: {store.current(name)} -> {store.rollback(name, to, by='tamis models rollback')}")


@command(app)
def promote(name: Name, version: Annotated[str, Argument(help="Such as v0003.")], store_options: StoreOptions) -> None:
    """Make any version current, such as a waiting candidate. Workers load it within seconds.

    \b
    Example:
      tamis models promote glucose v0003
    """
    store = store_options.open()
    before = store.current(name)
    store.promote(name, version, by="tamis models promote")
    print(f"{name}: {before} -> {version}")
