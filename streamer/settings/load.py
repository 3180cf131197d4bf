"""Settings from a TOML file, then TAMIS_... in the environment, then the command line; read once, at start-up.

A nested key is written ``TAMIS_TOPICS__PREFIX`` in the environment. A key that is unknown or has a wrong value is
refused by name: a misspelt setting that is silently ignored costs a night shift.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_settings import InitSettingsSource, PydanticBaseSettingsSource, SettingsError

from ... import BadSettings
from .secrets import is_text
from .tables import PREFIX, Settings

CONFIG_VARIABLE = "TAMIS_CONFIG"  # the path of the TOML file
_NO_SETTINGS = (CONFIG_VARIABLE, "TAMIS_TEST_")
_MAX_BYTES = 1 << 20  # of a settings file


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process.

    Args:
        config: a TOML file; if None, the file named by TAMIS_CONFIG, if any.
        overrides: from the command line; None values are ignored.

    Raises:
        BadSettings: one line per fault, with the key, its place, the value and the expectation.
    """
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    values: dict[str, Any] = _read_toml(config) if config is not None else {}
    if unknown := [fault for name in sorted(os.environ) if (fault := _unknown_variable(name))]:
        raise BadSettings("\n".join(unknown))
    given = {key: value for key, value in (overrides or {}).items() if value is not None}

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: Any, init_settings: Any, env_settings: Any, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            kafka = InitSettingsSource(settings_cls, _kafka_of_environment())
            return init_settings, kafka, env_settings, InitSettingsSource(settings_cls, values)  # the first wins

    try:
        return Loaded(**given)
    except ValidationError as error:
        faults = [_sentence(fault, config, values) for fault in error.errors()]
        raise BadSettings("\n".join(dict.fromkeys(faults))) from None
    except (SettingsError, RecursionError) as error:  # a bad JSON value of the environment
        raise BadSettings(f"environment: {error}; expected JSON") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise BadSettings(f"{path}: expected settings of at most {_MAX_BYTES} bytes, got more")
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise BadSettings(f"cannot read the settings file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, a number with thousands of digits
        raise BadSettings(f"{path}: expected TOML: {error}") from error


def _kafka_of_environment() -> dict[str, Any]:
    """The variables TAMIS_KAFKA__...: numbers as numbers, a password of digits as text.

    pydantic-settings takes all of them for text, or all for JSON, depending on its version.
    """
    kafka: dict[str, Any] = {}
    for name, value in os.environ.items():
        key = name.lower().removeprefix(f"{PREFIX}kafka__".lower())
        if len(key) == len(name):
            continue
        kafka[key] = value
        if not is_text(key):
            with suppress(ValueError):  # a word, such as the name of a compression
                kafka[key] = json.loads(value)
    return {"kafka": kafka} if kafka else {}


def _unknown_variable(name: str) -> str | None:
    head = name.removeprefix(PREFIX).split("__")[0].lower()
    if not name.startswith(PREFIX) or name.startswith(_NO_SETTINGS) or head in Settings.model_fields:
        return None  # nested keys are checked with the tables
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    table = next((k for k in known if name.startswith(f"{k}_")), None)
    hint = f"did you mean {table}__{name[len(table) + 1 :]}?" if table else f"known: {', '.join(known)}"
    return f"unknown setting {name}; {hint}"


def _sentence(fault: Any, config: Path | None, toml: Mapping[str, Any]) -> str:
    """One validation error as: place, value, expectation."""
    path = [str(part) for part in fault["loc"]]
    dotted = ".".join(path)
    variable = PREFIX + "__".join(path).upper()
    in_environment = next((v for v in (variable, PREFIX + path[0].upper()) if v in os.environ), None) if path else None
    where = in_environment or (f"{config}: {dotted}" if path and path[0] in toml else dotted)
    if fault["type"] == "extra_forbidden":
        table: Any = Settings
        for part in path[:-1]:
            inside = getattr(table, "model_fields", {}).get(part)
            table = inside.annotation if inside is not None else (*get_args(table), None)[-2]  # dict[str, Line]: Line
        known = ", ".join(getattr(table, "model_fields", {}))
        return f"unknown setting {where}; known: {known}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{where}: {message}"
    shown = "***" if path[0] == "kafka" else repr(fault["input"])
    return f"{where} = {shown:.120}: {message[0].lower()}{message[1:]}"
