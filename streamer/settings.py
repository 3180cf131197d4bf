"""One settings tree: a TOML file, then TAMIS_... in the environment, then the command line; read once, at start-up.

A nested key is written ``TAMIS_TOPICS__PREFIX`` in the environment. Every key that is unknown or has a wrong value is
refused by name: a misspelt setting that is silently ignored costs a night shift.
"""

from __future__ import annotations

import json
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from .. import BadSettings
from ..models.axis import MAX_BANDS, Axis
from .rules import Rule
from .transport.secrets import FROM_FILES, TOKEN_FILE, is_secret, is_text, with_files_read

PREFIX = "TAMIS_"
CONFIG_VARIABLE = "TAMIS_CONFIG"  # the path of the TOML file
_FOREIGN = (CONFIG_VARIABLE, "TAMIS_TEST_")  # ours, and no settings
# Keys of kafka-python that Tamis sets itself: delivery, decoding and commits rest on them.
_OURS = frozenset(
    (
        *("bootstrap_servers", "group_id", "auto_offset_reset", "enable_auto_commit", "acks", "enable_idempotence"),
        *("key_deserializer", "value_deserializer", "key_serializer", "value_serializer", "transactional_id"),
        *("isolation_level", "max_poll_records", "partition_assignment_strategy", "allow_auto_create_topics"),
    )
)
# Taken by its clients, and then forgotten: whoever set it would think himself safer than he is.
_UNHEEDED = {
    "ssl_ciphers": "kafka-python does not heed it; OpenSSL's own configuration says which are used",
    "ssl_crlfile": "kafka-python can not load it; let the broker's certificates live for days instead",
}

_MOST_BYTES = 1 << 20  # of a settings file

Seconds = Annotated[float, Field(gt=0, le=3600)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)  # nested tables do not inherit it


class Topics(_Table):
    """Names are the prefix, a dot, and the role: tamis.spectra, .predictions, .decisions, .rejects, .labels, ..."""

    prefix: str = Field("tamis", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    create: bool = Field(True, description="create missing topics at start-up; else a missing topic is an error")
    partitions: int = Field(4, ge=1, le=10_000, description="of topics that Tamis creates")

    @property
    def spectra(self) -> str:
        return f"{self.prefix}.spectra"

    @property
    def predictions(self) -> str:
        return f"{self.prefix}.predictions"

    @property
    def decisions(self) -> str:
        return f"{self.prefix}.decisions"

    @property
    def rejects(self) -> str:
        return f"{self.prefix}.rejects"

    @property
    def labels(self) -> str:
        return f"{self.prefix}.labels"

    @property
    def label_requests(self) -> str:
        return f"{self.prefix}.label-requests"


class Hours(NamedTuple):
    """When a line runs, in the machine's local time; a shift that ends earlier than it begins ends the day after.

    >>> night = Hours.parse("Mon-Fri 22:00-06:00")
    >>> night.at(datetime(2026, 11, 24, 23, 0)), night.at(datetime(2026, 11, 22, 23, 0))  # a Tuesday, a Sunday
    (True, False)
    """

    days: frozenset[int]
    start_min: int
    stop_min: int

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Raises ValueError."""
        if not text.strip():
            return cls(frozenset(range(7)), 0, 0)
        found = re.fullmatch(r"(?:(\w{3})(?:-(\w{3}))?\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)", text.strip())
        names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        parts = found.groups() if found else ()
        if not parts or any(day and day.lower() not in names for day in parts[:2]):
            raise ValueError(f"expected hours such as 'Mon-Fri 06:00-22:00' or '06:00-22:00', got {text!r}")
        first = names.index((parts[0] or "mon").lower())
        last = names.index((parts[1] or parts[0] or "sun").lower())
        hours = [int(part) for part in parts[2:]]
        if max(hours[0], hours[2]) > 24 or max(hours[1], hours[3]) > 59:
            raise ValueError(f"expected hours up to 24:00, got {text!r}")
        days = frozenset((first + i) % 7 for i in range((last - first) % 7 + 1))
        return cls(days, hours[0] * 60 + hours[1], hours[2] * 60 + hours[3])

    def at(self, now: datetime) -> bool:
        minute, today = now.hour * 60 + now.minute, now.weekday()
        if self.start_min < self.stop_min:
            return today in self.days and self.start_min <= minute < self.stop_min
        return (today in self.days and minute >= self.start_min) or (
            (today - 1) % 7 in self.days and minute < self.stop_min
        )


class DecisionRule(_Table):
    """When to do what with an object: `when` holds, or it is of `class` with the asked purity or recovery; or both."""

    action: str = Field(pattern=r"^[a-z0-9_-]{1,40}$", description="such as eject; `otherwise` where no rule holds")
    when: str = Field("", description="such as 'label == \"PVC\" and confidence >= 0.9', or 'fat_low > 12'")
    of_class: str | None = Field(None, alias="class", description="one of the model's; needs purity or recovery")
    purity: float | None = Field(None, gt=0, le=1, description="asked of what is told to be of the class")
    recovery: float | None = Field(None, gt=0, le=1, description="share of the class that is to be found")

    @model_validator(mode="after")
    def _makes_sense(self) -> DecisionRule:
        asked = [self.purity, self.recovery].count(None)
        if self.of_class is None and asked < 2:
            raise ValueError("purity and recovery are of a class: name it")
        if self.of_class is not None and asked != 1:
            raise ValueError(f"class = {self.of_class!r} needs either purity or recovery")
        if self.of_class is None and not self.when:
            raise ValueError("expected `when`, or a class with its purity or recovery")
        if self.when:
            Rule(self.when)
        return self


class Decide(_Table):
    """What is decided of each object; without rules, nothing is."""

    rules: list[DecisionRule] = Field([], description="the first that holds is followed")
    otherwise: str = Field("pass", pattern=r"^[a-z0-9_-]{1,40}$", description="the action where none holds")
    deadline_s: float = Field(0.05, ge=0, le=3600, description="from an object's last spectrum to the ejector")
    close_s: float = Field(
        0.0, ge=0, le=60, description="an object whose spectra come in several messages is whole after such a pause"
    )
    conformal: float = Field(0.95, gt=0.5, lt=1, description="the share of a class's spectra that have it in their set")
    encoding: Literal["json", "arrow"] = "json"


class Camera(_Table):
    """A line camera over a belt: its pixels become reflectance, and objects."""

    pixels: int = Field(0, ge=0, le=65_536, description="across the belt; 0: the line has no camera")
    white: str = Field("", description="ENVI cube of a white reference; messages of one refresh it")
    dark: str = Field("", description="ENVI cube of a dark reference; else zero")
    belt: tuple[float, float] | None = Field(
        None, description="mean reflectance of the empty belt, from and to: pixels outside are of objects"
    )
    every: int = Field(
        1, ge=1, le=10_000, description="of an object's pixels in a message, every so-many-th is predicted"
    )
    longest_lines: int = Field(2_000, ge=2, le=100_000, description="an object that is longer is cut")

    @model_validator(mode="after")
    def _makes_sense(self) -> Camera:
        if not self.pixels and (self.white or self.dark or self.belt):
            raise ValueError("a camera needs its number of pixels")
        if self.dark and not self.white:
            raise ValueError("dark needs white: reflectance is measured between the two")
        if self.belt and not self.belt[0] < self.belt[1]:
            raise ValueError(f"belt: expected a lower and an upper reflectance, got {list(self.belt)}")
        return self


class Line(_Table):
    """One sorting line; the table ``"*"`` stands for every line that has no table of its own."""

    model: str = Field("default", description="the model in the store that serves this line")
    saturation: float | None = Field(
        None, allow_inf_nan=False, description="a band at or above this is saturated, in the frame's quantity"
    )
    decide: Decide = Decide()  # type: ignore[call-arg]
    camera: Camera = Camera()  # type: ignore[call-arg]
    runs: str = Field("", description="when spectra are expected, such as 'Mon-Fri 06:00-22:00'; '' is always")

    @model_validator(mode="after")
    def _schedule(self) -> Line:
        self.hours()
        return self

    def hours(self) -> Hours:
        return Hours.parse(self.runs)


class NamedAxis(_Table):
    """An axis that messages may name: either `values`, or `start`, `stop` and `bands`, evenly spaced."""

    unit: Literal["nm", "cm-1", "index"]
    values: list[float] | None = None
    start: float | None = None
    stop: float | None = None
    bands: int | None = Field(None, ge=2, le=MAX_BANDS)

    @model_validator(mode="after")
    def _one_of_two(self) -> NamedAxis:
        self.axis()
        return self

    def axis(self) -> Axis:
        if self.values is not None:
            return Axis(np.array(self.values), self.unit)
        if self.start is None or self.stop is None or self.bands is None:
            raise ValueError("needs either values, or start, stop and bands")
        return Axis(np.linspace(self.start, self.stop, self.bands), self.unit)


class Transactions(_Table):
    """Of exactly_once: predictions, rejects, label requests and offsets are committed together."""

    interval_s: float = Field(0.5, gt=0, le=30, description="one is committed so often: what readers wait for")
    frames: int = Field(500, ge=1, le=100_000, description="or after so many")
    slot: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="which worker of the group this is: the same after a restart, no other's; '' is the host's name",
    )


class Rejects(_Table):
    """When to stop, rather than to empty the topic into the rejects."""

    stop_ratio: float = Field(0.5, gt=0, le=1, description="more than this share set aside ends the worker; 1 never")
    window_frames: int = Field(100, ge=10, le=100_000, description="of the newest messages")


class Process(_Table):
    """The second, robust limit that is learned from the running process."""

    window_spectra: int = Field(256, ge=8, le=100_000, description="how far back the limit looks")
    learn_spectra: int = Field(30, ge=8, le=100_000, description="fewer than these, and nothing is called odd yet")


class Drift(_Table):
    """How lines are watched for drift: blocks of spectra against a reference that is learned from the first of them."""

    block_spectra: int = Field(256, ge=16, le=100_000, description="judged together; on a slow line take fewer")
    pace_s: float = Field(
        0.1, ge=0, le=3600, description="blocks of a fast line are taken so far apart, by the spectra's own time"
    )
    learn_blocks: int = Field(20, ge=0, le=1_000, description="the reference: what is usual; 0 watches nothing")
    folder: str = Field("drift", description="the references, kept over restarts")
    reference_objects: list[str] = Field(
        [], description="object_ids of what never changes, a white tile or a check sample, scanned now and then"
    )

    @field_validator("learn_blocks")
    @classmethod
    def _enough(cls, blocks: int) -> int:
        if blocks == 1:
            raise ValueError("one block says nothing of how blocks differ: expected 0, or at least 2 (20 is better)")
        return blocks


class Requests(_Table):
    """Which objects the worker asks laboratory values of."""

    per_hour: float = Field(0.0, ge=0, le=3600, description="of each line; 0 asks for none")


class Trainer(_Table):
    """What goes on learning, from which labels, and what it may do."""

    model: str = Field("default", description="the model in the store that is kept up to date; lines name it")
    group: str = Field("tamis-trainer", min_length=1, description="its consumer group")
    folder: str = Field("trainer", description="its buffer, its checkpoint and its verdicts")
    buffer_max_bytes: int = Field(1 << 30, ge=1 << 20, le=1 << 40, description="on disk; never more")
    promote: Literal["auto", "by-hand"] = Field(
        "auto", description="by-hand publishes what passed the gate, and leaves it to `tamis models promote`"
    )
    gold: list[str] = Field([], description="recorded files with laboratory values that nothing is ever fitted on")
    refit_labels: int = Field(1, ge=0, le=100_000, description="refit after so many new labels; 0 never")
    label_span_s: float = Field(
        0.0, ge=0, le=86_400, description="spectra so near in time to a labeled one have its value too; 0 for none"
    )
    pretrain_spectra: int = Field(10_000, ge=0, le=10**9, description="pretrain after so many new spectra; 0 never")
    encoder: Literal["mlp", "cnn", "spectratr"] = "mlp"
    preprocess: str = Field("snv, savgol 15 2 1", description="what the encoder sees")
    objective: Literal["nt-xent", "vicreg", "barlow", "masked"] = "nt-xent"
    augment: str = Field("", description="physical augmentations beside what the pairs show, such as 'scatter 0.05'")
    steps: int = Field(1_000, ge=1, le=10_000_000)
    batch: int = Field(128, ge=2, le=65_536, description="objects a step")
    seed: int = Field(0, ge=0, le=2**32 - 1)
    metrics_port: Port = Field(9109, description="0 takes any free port; the host is metrics.host")
    margin: float = Field(0.02, ge=0, le=1, description="of RMSE over the champion's that the gate lets pass")


class Output(_Table):
    encoding: Literal["arrow", "json"] = Field("arrow", description="json writes one object a spectrum, a line each")


class Metrics(_Table):
    host: str = Field("127.0.0.1", description="loopback unless asked: metrics tell much about a plant")
    port: Port = Field(9108, description="0 takes any free port; the log names it")
    forget_s: float = Field(28_800, ge=60, le=10**8, description="a line so long unheard is no longer shown")


class Log(_Table):
    format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, JSON elsewhere")
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """Everything that an operator may turn."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=False
    )

    brokers: str = Field("localhost:9092", min_length=1, description="host:port, several parted by commas")
    group: str = Field("tamis-worker", min_length=1, description="the consumer group of the workers")
    start_at: Literal["earliest", "latest"] = Field("earliest", description="where a new group begins to read")
    store: str = Field("store", description="the folder of the model store, or file:///folder")
    frame_max_bytes: int = Field(
        900_000, ge=1_000, le=100_000_000, description="brokers refuse messages over 1 MiB by default"
    )
    processing_guarantee: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="exactly_once: each spectrum's results once, for readers with read_committed"
    )
    partitions: list[Annotated[int, Field(ge=0, le=100_000)]] = Field(
        [], description="read these and no others, a box wired to its line; [] lets the group share them out"
    )
    in_flight_max_bytes: int = Field(
        1 << 26, ge=1 << 20, le=1 << 34, description="of messages read, and of results on their way: memory's bound"
    )
    stuck_s: Seconds = Field(60.0, ge=5, description="a loop that has not turned for so long ends the process: exit 75")
    stall_s: Seconds = Field(120.0, description="messages are there and none comes for so long: exit 75")
    poll_timeout_s: float = Field(1.0, gt=0, le=10, description="a signal to stop is heeded within it")
    flush_timeout_s: Seconds = 10.0
    reload_s: Seconds = Field(2.0, description="how often a worker looks for a new current version in the store")
    predict_threads: int = Field(0, ge=0, le=1024, description="of a network in a worker; 0 takes every core")
    topics: Topics = Topics()  # type: ignore[call-arg]
    lines: dict[str, Line] = {"*": Line()}  # type: ignore[call-arg]
    axes: dict[str, NamedAxis] = Field({}, description="axes that raw and JSON messages may name")
    transactions: Transactions = Transactions()  # type: ignore[call-arg]
    rejects: Rejects = Rejects()  # type: ignore[call-arg]
    process: Process = Process()  # type: ignore[call-arg]
    drift: Drift = Drift()  # type: ignore[call-arg]
    predictions: Output = Output()  # type: ignore[call-arg]
    requests: Requests = Requests()  # type: ignore[call-arg]
    trainer: Trainer = Trainer()  # type: ignore[call-arg]
    metrics: Metrics = Metrics()  # type: ignore[call-arg]
    log: Log = Log()  # type: ignore[call-arg]
    kafka: dict[str, Any] = Field(
        {},
        repr=False,
        description="passed to kafka-python: security_protocol, sasl_..., ssl_...; KEY_file for secrets; never logged",
    )

    @field_validator("brokers")
    @classmethod
    def _hosts_and_ports(cls, given: str) -> str:
        for broker in given.split(","):
            host, _, port = broker.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("expected host:port, several parted by commas")
            if "@" in host or "/" in host:  # brokers are named in logs and errors, and so would the password be
                raise ValueError("expected host:port alone; who we are is said under kafka: sasl_plain_username, ...")
        return given

    @field_validator("kafka")
    @classmethod
    def _known_to_kafka(cls, given: dict[str, Any]) -> dict[str, Any]:
        if not given:
            return given
        from kafka import KafkaConsumer, KafkaProducer

        known = (KafkaConsumer.DEFAULT_CONFIG.keys() | KafkaProducer.DEFAULT_CONFIG.keys()) - _OURS - _UNHEEDED.keys()
        known |= {f"{key}_file" for key in FROM_FILES} | {TOKEN_FILE}
        for key in given:
            if key in _UNHEEDED:
                raise ValueError(f"kafka.{key}: {_UNHEEDED[key]}")
            if key in _OURS:
                raise ValueError(f"kafka.{key} is not yours to set: what Tamis promises rests on it")
            if key not in known:
                near = ", ".join(sorted(k for k in known if k.split("_")[0] == key.split("_")[0])) or "see kafka-python"
                raise ValueError(f"unknown setting kafka.{key}; near it: {near}")
        return with_files_read(given)

    @property
    def transactional_id(self) -> str | None:
        """None where results are delivered at least once."""
        if self.processing_guarantee == "at_least_once":
            return None
        return f"{self.group}-{self.transactions.slot or socket.gethostname()}"

    @property
    def decides(self) -> bool:
        """Whether any line has rules."""
        return any(line.decide.rules for line in self.lines.values())

    def line(self, name: str) -> Line | None:
        return self.lines.get(name, self.lines.get("*"))

    def known_axes(self) -> dict[str, Axis]:
        """Every named axis, by its name and by its id."""
        named = {name: spec.axis() for name, spec in self.axes.items()}
        return named | {axis.id: axis for axis in named.values()}

    def printable(self) -> dict[str, Any]:
        """Every setting, secrets struck out."""
        shown = self.model_dump()
        shown["kafka"] = {key: "***" if is_secret(key) else value for key, value in self.kafka.items()}
        return shown


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings of this process.

    Args:
        config: a TOML file; where None, the one that TAMIS_CONFIG names, if any.
        overrides: from the command line; None values do not count.

    Raises:
        BadSettings: one line a fault, each naming the key, where it stands, what came and what was expected.
    """
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    values: dict[str, Any] = _read_toml(config) if config is not None else {}
    unknown = [fault for name in sorted(os.environ) if name.startswith(PREFIX) and (fault := _unknown_variable(name))]
    if unknown:
        raise BadSettings("\n".join(unknown))
    given = {key: value for key, value in (overrides or {}).items() if value is not None}

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: Any, init_settings: Any, env_settings: Any, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            kafka = InitSettingsSource(settings_cls, _kafka_of_environment())
            return init_settings, kafka, env_settings, InitSettingsSource(settings_cls, values)  # the first one wins

    try:
        return Loaded(**given)
    except ValidationError as error:
        faults = [_sentence(fault, config, values) for fault in error.errors()]
        raise BadSettings("\n".join(dict.fromkeys(faults))) from None
    except Exception as error:  # pydantic-settings wraps a bad JSON value of the environment in its own error
        if type(error).__name__ != "SettingsError" and not isinstance(error, RecursionError):
            raise
        raise BadSettings(f"environment: {error}; expected JSON") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise BadSettings(f"{path}: expected settings of at most {_MOST_BYTES} bytes, got more")
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise BadSettings(f"can not read the settings file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number with thousands of digits
        raise BadSettings(f"{path}: expected TOML: {error}") from error


def _kafka_of_environment() -> dict[str, Any]:
    """The variables TAMIS_KAFKA__...: numbers as numbers, a password of digits as text.

    Which is which only kafka-python knows; pydantic-settings takes all for text, or all for JSON, by its version.
    """
    kafka: dict[str, Any] = {}
    for name, value in os.environ.items():
        key = name.lower().removeprefix(f"{PREFIX}kafka__".lower())
        if len(key) == len(name):
            continue
        kafka[key] = value
        if not is_text(key):
            with suppress(ValueError):  # no JSON: a word, such as a compression's
                kafka[key] = json.loads(value)
    return {"kafka": kafka} if kafka else {}


def _unknown_variable(name: str) -> str | None:
    if name.startswith(_FOREIGN):
        return None
    head = name[len(PREFIX) :].split("__")[0].lower()
    if head in Settings.model_fields:
        return None  # a nested key is checked with the tables
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    table = next((k for k in known if name.startswith(f"{k}_")), None)
    hint = f"did you mean {table}__{name[len(table) + 1 :]}?" if table else f"known: {', '.join(known)}"
    return f"unknown setting {name}; {hint}"


def _sentence(fault: Any, config: Path | None, toml: Mapping[str, Any]) -> str:
    """One validation error as: where, what came, what was expected."""
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
