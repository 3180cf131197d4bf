"""The options that several commands share.

A parameter of a command may be one of the dataclasses below: on the command line, each of its fields is an option.
Heavy modules are imported inside functions, so that `--help` is fast.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from ... import BadSettings

if TYPE_CHECKING:
    from ...models.store import Store
    from ..files.options import ReadOptions
    from ..fitting.training_data import LaboratoryOptions
    from ..settings.tables import Settings


def new_app(**more: Any) -> typer.Typer:
    return typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich doubles the time of --help
        **more,
    )


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command, with the fields of its dataclass parameters as options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        groups: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
        flat = [one for name, one in own.items() if name not in groups]
        for group in groups.values():
            flat += inspect.signature(group, eval_str=True).parameters.values()
        flat = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in flat]

        @functools.wraps(function)
        def call(**given: Any) -> None:
            made = {key: group(**{f.name: given.pop(f.name) for f in fields(group)}) for key, group in groups.items()}
            function(**given, **made)

        call.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in flat}
        return app.command(name)(call)

    return register


@dataclass(frozen=True)
class ConfigOptions:
    config: Annotated[Path | None, Option("--config", "-c", help="Settings file, TOML; else TAMIS_CONFIG.")] = None

    def settings(self, *, quiet: bool = True) -> Settings:
        """The settings, overridden by the other options. Logs only warnings, or as the settings say."""
        from ..monitoring.logs import configure
        from ..settings.load import load

        settings = load(self.config, {name: value for name, value in vars(self).items() if name != "config"})
        configure(None if quiet else settings.log)
        return settings


@dataclass(frozen=True)
class BrokerOptions(ConfigOptions):
    brokers: Annotated[str | None, Option(help="Kafka bootstrap servers, host:port[,host:port].")] = None


@dataclass(frozen=True)
class StoreOptions(ConfigOptions):
    store: Annotated[str | None, Option("--store", help="Folder of the model store, or file:///folder.")] = None

    def open(self) -> Store:
        from ...models.store import Store

        return Store(self.settings().store)


@dataclass(frozen=True)
class ServiceOptions(StoreOptions, BrokerOptions):
    """The options of a command that needs both the brokers and the store."""


@dataclass(frozen=True)
class FileOptions:
    where: Annotated[list[str] | None, Option(help="COLUMN=VALUE: only these rows. May be repeated.")] = None
    axis_unit: Annotated[
        list[str] | None,
        Option(help="nm, um, cm-1, raman or index, for a file that does not say; SENSOR=UNIT for that of a sensor."),
    ] = None
    bands: Annotated[str | None, Option(help="Columns of the spectrum: '1100:2500' or 'nir_*'.")] = None
    quantity: Annotated[str | None, Option(help="absorbance, reflectance or counts, if the file does not say.")] = None
    sensor: Annotated[list[str] | None, Option(help="NAME=FILE or NAME=COLUMNS: a further sensor. Repeatable.")] = None

    def reading(self, **more: Any) -> ReadOptions:
        from ..files.options import ReadOptions
        from ..files.other_sensors import OtherSensors

        where = values_by_name(self.where, "--where")
        sensors = values_by_name(self.sensor, "--sensor")
        if twice := [name for name, given in sensors.items() if len(given) > 1]:
            raise BadSettings(f"--sensor expects each name once, got {twice[0]} twice")
        own = [text for text in self.axis_unit or [] if "=" not in text]
        if len(own) > 1:
            raise BadSettings(f"--axis-unit expects one unit, and SENSOR=UNIT for a sensor; got {' and '.join(own)}")
        units = pairs([text for text in self.axis_unit or [] if "=" in text], "--axis-unit")
        if units and not sensors:
            raise BadSettings(f"--axis-unit {next(iter(units))}=... is for a --sensor, and there is none")
        return ReadOptions(
            axis_unit=own[0] if own else None,
            bands=self.bands,
            quantity=self.quantity,
            where=where,
            sensors=OtherSensors({name: of for name, (of,) in sensors.items()}, units) if sensors else None,
            **more,
        )


@dataclass(frozen=True)
class TextFileOptions(FileOptions):
    encoding: Annotated[str | None, Option(help="Of files of text, such as windows-1252.")] = None

    def reading(self, **more: Any) -> ReadOptions:
        return super().reading(encoding=self.encoding, **more)


@dataclass(frozen=True)
class LaboratoryFileOptions:
    key: Annotated[str | None, Option(help="Column that joins laboratory values: NAME, OURS=THEIRS or row.")] = None
    classes: Annotated[list[str] | None, Option(help="Target of classes, even if numbers. Repeatable.")] = None
    keep: Annotated[list[str] | None, Option(help="Kind of finding that is used all the same. Repeatable.")] = None

    def of(self, labels: Path | None) -> LaboratoryOptions:
        from ..fitting.training_data import LaboratoryOptions

        return LaboratoryOptions(labels=labels, key=self.key, classes=self.classes or ())

    def targets(self, given: list[str] | None) -> list[str]:
        targets = [*(given or []), *(name for name in self.classes or [] if name not in (given or []))]
        if not targets:
            raise BadSettings("expected --target COLUMN, or --classes COLUMN for classes")
        return targets


@dataclass(frozen=True)
class CameraFileOptions(FileOptions):
    white: Annotated[Path | None, Option(help="ENVI cube of a white reference: counts become reflectance.")] = None
    dark: Annotated[Path | None, Option(help="ENVI cube of a dark reference; zero if not given.")] = None
    file_encoding: Annotated[str | None, Option(help="Of files of text, such as windows-1252.")] = None

    def reading(self, **more: Any) -> ReadOptions:
        reference = None
        if self.white is not None:
            from ..files.instruments.envi import read_references

            reference = read_references(str(self.white), None if self.dark is None else str(self.dark))
        elif self.dark is not None:
            raise BadSettings("--dark needs --white: reflectance is measured between the two")
        return super().reading(reference=reference, encoding=self.file_encoding, **more)


def tell(text: str) -> None:
    """A sentence about what is being done, for the person at the terminal: on stderr."""
    typer.echo(text, err=True)


@contextmanager
def refusing() -> Iterator[None]:
    """Makes BadSettings of a ValueError: an option that does not suit the data; the text says which."""
    try:
        yield
    except ValueError as error:
        raise BadSettings(str(error)) from error


@contextmanager
def progress_bar(text: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """On a terminal, until the work is done; yields a function that sets its `description` and `completed` steps."""
    from rich.console import Console
    from rich.progress import Progress

    stderr = Console(stderr=True)
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        yield functools.partial(bar.update, bar.add_task(text, total=total))


def values_by_name(given: list[str] | None, option: str) -> dict[str, list[str]]:
    """From NAME=VALUE texts; a name may have several values."""
    values: dict[str, list[str]] = {}
    for item in given or []:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise BadSettings(f"{option} expects NAME=VALUE, got {item!r}")
        values.setdefault(key, []).append(value)
    return values


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """As `values_by_name`; the last value of a name counts."""
    return {name: values[-1] for name, values in values_by_name(given, option).items()}


def numbers(given: list[str] | None, option: str) -> dict[str, float]:
    """As `pairs`, of finite numbers."""
    values = {}
    for name, text in pairs(given, option).items():
        try:
            values[name] = float(text)
        except ValueError:
            values[name] = math.nan
        if not math.isfinite(values[name]):
            raise BadSettings(f"{option} expects NAME=NUMBER, got {name}={text}")
    return values
