"""The command `tamis`. Each command imports what it needs when it runs, so that `--help` is fast."""

import sys
from typing import Annotated

import typer
from typer import Option

from ... import BadSettings, TamisError, __version__
from . import labels, models, run, send, study, train, watch
from .options import new_app

app = new_app(name="tamis", help="Predict from the spectra of a sorting line, and say which predictions to trust.")
for part in (train, study, run, send, watch):
    app.add_typer(part.app)
app.add_typer(models.app, name="models")
app.add_typer(labels.app, name="labels")
app.add_typer(watch.drift, name="drift")


def main() -> None:
    """Prints the errors that Tamis raises on purpose as sentences; exits with 2 for settings, 1 for the others.

    Typer itself exits quietly with 1 if the reader of our output is gone, as with `| head`.
    """
    try:
        app()
    except TamisError as error:
        for line in str(error).splitlines():
            print(f"tamis: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadSettings) else 1)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"tamis {__version__}")
        raise typer.Exit
