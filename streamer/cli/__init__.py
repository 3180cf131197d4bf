"""The command `tamis`. Each command imports what it needs when it runs, so that `--help` is fast."""

import os
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

    It exits quietly with 1 if the reader of our output is gone, as with `| head`.
    """
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # what fails while Python ends cannot be explained any more
    except TamisError as error:
        for line in str(error).splitlines():
            print(f"tamis: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadSettings) else 1)
    except OSError as error:
        if not _is_output_lost():
            raise
        if not isinstance(error, BrokenPipeError):
            print(f"tamis: cannot write to standard output: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _is_output_lost() -> bool:
    """Whether standard output takes nothing more: its disk is full, or nobody reads it. Then the rest goes nowhere."""
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"tamis {__version__}")
        raise typer.Exit
