"""Every setting, its default and its limits: one class a table of the TOML file."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ...models.axis import MAX_BANDS, Axis
from .hours import Hours, refuse_unknown_zone
from .rule import Rule
from .secrets import is_secret, with_files_read

PREFIX = "TAMIS_"  # of environment variables

Seconds = Annotated[float, Field(gt=0, le=3600)]
Port = Annotated[int, Field(ge=0, le=65535)]
Partition = Annotated[int, Field(ge=0, le=100_000)]
Guarantee = Literal["at_least_once", "exactly_once"]


class _Table(BaseModel):
    """A ValueError of `model_post_init` becomes a fault of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # nested tables do not inherit it


def _topic(role: str) -> property:
    return property(lambda topics: f"{topics.prefix}.{role}")


class Topics(_Table):
    """Topics are named prefix.role: tamis.spectra, tamis.predictions, tamis.decisions, tamis.rejects, ..."""

    prefix: str = Field("tamis", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    create: bool = Field(True, description="create missing topics at start-up; else a missing topic is an error")
    partitions: int = Field(4, ge=1, le=10_000, description="for topics that Tamis creates")

    spectra = _topic("spectra")
    predictions = _topic("predictions")
    decisions = _topic("decisions")
    rejects = _topic("rejects")
    labels = _topic("labels")
    label_requests = _topic("label-requests")
    label_rejects = _topic("label-rejects")


class DecisionRule(_Table):
    """An action, and its condition: `when`, or a `class` with the requested purity or recovery, or both."""

    action: str = Field(pattern=r"^[a-z0-9_-]{1,40}$", description="such as eject")
    when: str = Field("", description="such as 'label == \"PVC\" and confidence >= 0.9', or 'fat_low > 12'")
    of_class: str | None = Field(None, alias="class", description="one of the model's; needs purity or recovery")
    purity: float | None = Field(None, gt=0, le=1, description="requested share of the class among what the rule takes")
    recovery: float | None = Field(None, gt=0, le=1, description="requested share of the class that the rule takes")

    def model_post_init(self, context: Any, /) -> None:
        asked = [self.purity, self.recovery].count(None)
        if self.of_class is None and asked < 2:
            raise ValueError("purity and recovery need a class")
        if self.of_class is not None and asked != 1:
            raise ValueError(f"class = {self.of_class!r} needs either purity or recovery")
        if self.of_class is None and not self.when:
            raise ValueError("expected `when`, or a class with purity or recovery")
        if self.when:
            Rule(self.when)


class Decide(_Table):
    """The decision for each object. Without rules there are no decisions."""

    rules: list[DecisionRule] = Field([], description="the first one that applies decides")
    otherwise: str = Field("pass", pattern=r"^[a-z0-9_-]{1,40}$", description="the action when no rule applies")
    deadline_s: float = Field(0.05, ge=0, le=3600, description="from an object's last spectrum to the ejector")
    close_s: float = Field(0.0, ge=0, le=60, description="pause after which an object in several messages is complete")
    conformal: float = Field(0.95, gt=0.5, lt=1, description="share of a class's spectra whose set contains the class")
    encoding: Literal["json", "arrow"] = "json"


class Camera(_Table):
    """A line camera over a belt: counts become reflectance, and pixels are grouped into objects."""

    pixels: int = Field(0, ge=0, le=65_536, description="across the belt; 0 means that the line has no camera")
    white: str = Field("", description="ENVI cube of a white reference; white messages replace it")
    dark: str = Field("", description="ENVI cube of a dark reference; zero if not given")
    belt: tuple[float, float] | None = Field(None, description="lowest, highest mean reflectance of the empty belt")
    every: int = Field(1, ge=1, le=10_000, description="predict every n-th pixel of an object in a message")
    longest_lines: int = Field(2_000, ge=2, le=100_000, description="longer objects are cut")

    def model_post_init(self, context: Any, /) -> None:
        if not self.pixels and (self.white or self.dark or self.belt):
            raise ValueError("a camera needs its number of pixels")
        if self.dark and not self.white:
            raise ValueError("dark needs white: reflectance is measured between the two")
        if self.belt and not self.belt[0] < self.belt[1]:
            raise ValueError(f"belt: expected a lower and an upper reflectance, got {list(self.belt)}")


class Line(_Table):
    """One sorting line. The table ``"*"`` applies to every line without a table of its own."""

    model: str = Field("default", description="the model in the store that serves this line")
    saturation: float | None = Field(None, allow_inf_nan=False, description="a band at or above this is saturated")
    decide: Decide = Decide()  # type: ignore[call-arg]
    camera: Camera = Camera()  # type: ignore[call-arg]
    runs: str = Field("", description="when spectra are expected, such as 'Mon-Fri 06:00-22:00'; '' means always")

    def model_post_init(self, context: Any, /) -> None:
        self.hours()
        if self.runs:
            refuse_unknown_zone()

    def hours(self) -> Hours:
        return Hours.parse(self.runs)


class NamedAxis(_Table):
    """An axis that messages can refer to by name: `values`, or evenly spaced `start`, `stop` and `bands`."""

    unit: Literal["nm", "cm-1", "index"]
    values: list[float] | None = None
    start: float | None = None
    stop: float | None = None
    bands: int | None = Field(None, ge=2, le=MAX_BANDS)

    def model_post_init(self, context: Any, /) -> None:
        self.axis()

    def axis(self) -> Axis:
        if self.values is not None:
            return Axis(np.array(self.values), self.unit)
        if self.start is None or self.stop is None or self.bands is None:
            raise ValueError("needs either values, or start, stop and bands")
        return Axis(np.linspace(self.start, self.stop, self.bands), self.unit)


class Transactions(_Table):
    """For exactly_once: predictions, rejects, label requests and offsets are committed together."""

    interval_s: float = Field(0.04, gt=0, le=30, description="least time between commits; readers wait this long")
    frames: int = Field(500, ge=1, le=100_000, description="or commit after this many messages")
    slot: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="unique to this worker; '' is by host")


class Rejects(_Table):
    """When to stop instead of rejecting the whole topic."""

    stop_ratio: float = Field(0.5, gt=0, le=1, description="the worker stops above this share; 1 means never")
    window_frames: int = Field(100, ge=10, le=100_000, description="the newest messages that are counted")


class Process(_Table):
    """The second limit on outliers, robust and learned from the running process."""

    window_spectra: int = Field(256, ge=8, le=100_000, description="the newest spectra that the limit is learned from")
    learn_spectra: int = Field(30, ge=8, le=100_000, description="no spectrum is called odd before this many")


class Drift(_Table):
    """Drift detection: blocks of spectra are compared with a reference learned from the first blocks."""

    block_spectra: int = Field(256, ge=16, le=100_000, description="compared together; use fewer on a slow line")
    pace_s: float = Field(0.1, ge=0, le=3600, description="least time between blocks, by the spectra's times")
    cpu_share: float = Field(0.1, gt=0, le=1, description="of one core; above it, blocks are left out")
    learn_blocks: int = Field(20, ge=0, le=1_000, description="blocks in the reference; 0 turns drift detection off")
    folder: str = Field("drift", description="keeps the references over restarts")
    reference_objects: list[str] = Field([], description="object_ids of stable, rescanned objects")

    @field_validator("learn_blocks")
    @classmethod
    def _enough(cls, blocks: int) -> int:
        if blocks == 1:
            raise ValueError("expected 0, or at least 2 blocks (better 20): one does not show how blocks differ")
        return blocks


class Requests(_Table):
    """How often the worker requests laboratory values."""

    per_hour: float = Field(0.0, ge=0, le=3600, description="for each line; 0 requests none")


class Trainer(_Table):
    """Continual learning: which model, from which labels, and what is published."""

    model: str = Field("default", description="the model in the store that is kept up to date")
    group: str = Field("tamis-trainer", min_length=1, description="its consumer group")
    folder: str = Field(
        "trainer", description="keeps the replay buffer, the checkpoint, the verdicts and the log of laboratory values"
    )
    buffer_max_bytes: int = Field(1 << 30, ge=1 << 20, le=1 << 40, description="limit on disk")
    promote: Literal["auto", "by-hand"] = Field("auto", description="by-hand waits for `tamis models promote`")
    gold: list[str] = Field([], description="recorded files with laboratory values, for testing only")
    refit_labels: int = Field(1, ge=0, le=100_000, description="refit after this many new labels; 0 means never")
    label_span_s: float = Field(0.0, ge=0, le=86_400, description="spectra so close to a labeled one get its value")
    pretrain_spectra: int = Field(
        10_000, ge=0, le=10**9, description="after this many new spectra (of classes: looks at limits); 0 means never"
    )
    transfer_objects: int = Field(
        20, ge=0, le=100_000, description="seen by its master and by another instrument, lets it serve that; 0: never"
    )
    encoder: Literal["mlp", "cnn", "spectratr"] = "mlp"
    preprocess: str = Field("snv, savgol 15 2 1", description="pre-treatments before the encoder")
    objective: Literal["nt-xent", "vicreg", "barlow", "masked"] = "nt-xent"
    augment: str = Field("", description="physical augmentations in addition to the pairs, such as 'scatter 0.05'")
    steps: int = Field(1_000, ge=1, le=10_000_000)
    batch: int = Field(128, ge=2, le=65_536, description="objects per step")
    seed: int = Field(0, ge=0, le=2**32 - 1)
    metrics_port: Port = Field(9109, description="0 takes any free port; the host is metrics.host")
    margin: float = Field(0.02, ge=0, le=1, description="tolerated increase of RMSE over the champion's, a share")


class Output(_Table):
    encoding: Literal["arrow", "json"] = Field("arrow", description="json writes one line per spectrum")


class Metrics(_Table):
    host: str = Field("127.0.0.1", description="loopback by default: metrics reveal much about a plant")
    port: Port = Field(9108, description="0 takes any free port, shown in the log")
    forget_s: float = Field(28_800, ge=60, le=10**8, description="a line silent for this long is no longer shown")


class Log(_Table):
    format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, JSON elsewhere")
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """All settings of a process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    brokers: str = Field("localhost:9092", min_length=1, description="host:port, separated by commas")
    group: str = Field("tamis-worker", min_length=1, description="the consumer group of the workers")
    start_at: Literal["earliest", "latest"] = Field("earliest", description="where a new group starts reading")
    store: str = Field("store", description="the folder of the model store, or file:///folder")
    frame_max_bytes: int = Field(900_000, ge=1_000, le=100_000_000, description="brokers refuse over 1 MiB by default")
    processing_guarantee: Guarantee = Field("at_least_once", description="exactly_once needs read_committed")
    partitions: list[Partition] = Field([], description="read only these; [] lets the group assign them")
    in_flight_max_bytes: int = Field(1 << 26, ge=1 << 20, le=1 << 34, description="limit on messages in memory")
    stuck_s: Seconds = Field(60.0, ge=5, description="the process exits with 75 if its loop is stuck for this long")
    stall_s: Seconds = Field(120.0, description="and if messages wait but none arrives for this long")
    poll_timeout_s: float = Field(1.0, gt=0, le=10, description="a stop signal takes effect within this time")
    flush_timeout_s: Seconds = Field(15.0, description="for a delivery: an election of brokers takes up to 12 s")
    reload_s: Seconds = Field(2.0, description="how often a worker looks for a new current version in the store")
    predict_threads: int = Field(
        0, ge=0, le=1024, description="threads of a network in a worker; 0: every core it may use"
    )
    clock_skew_max_s: float = Field(60.0, gt=0, le=10**9, description="a larger difference is a wrong clock, no delay")
    topics: Topics = Topics()  # type: ignore[call-arg]
    lines: dict[str, Line] = {"*": Line()}  # type: ignore[call-arg]
    axes: dict[str, NamedAxis] = Field({}, description="axes that raw and JSON messages can refer to")
    transactions: Transactions = Transactions()  # type: ignore[call-arg]
    rejects: Rejects = Rejects()  # type: ignore[call-arg]
    process: Process = Process()  # type: ignore[call-arg]
    drift: Drift = Drift()  # type: ignore[call-arg]
    predictions: Output = Output()  # type: ignore[call-arg]
    requests: Requests = Requests()  # type: ignore[call-arg]
    trainer: Trainer = Trainer()  # type: ignore[call-arg]
    metrics: Metrics = Metrics()  # type: ignore[call-arg]
    log: Log = Log()  # type: ignore[call-arg]
    kafka: dict[str, Any] = Field({}, repr=False, description="for kafka-python; KEY_file for secrets; never logged")

    @field_validator("brokers")
    @classmethod
    def _hosts_and_ports(cls, given: str) -> str:
        for broker in given.split(","):
            host, _, port = broker.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("expected host:port, separated by commas")
            if "@" in host or "/" in host:  # logs and errors name brokers, and would show the password
                raise ValueError("expected host:port only; credentials belong under [kafka]: sasl_plain_username, ...")
        return given

    @field_validator("kafka")
    @classmethod
    def _known_to_kafka(cls, given: dict[str, Any]) -> dict[str, Any]:
        return with_files_read(given) if given else given  # kafka-python is imported only if needed

    @property
    def exactly_once(self) -> bool:
        return self.processing_guarantee == "exactly_once"

    @property
    def decides(self) -> bool:
        """Whether any line has rules."""
        return any(line.decide.rules for line in self.lines.values())

    def line(self, name: str) -> Line | None:
        return self.lines.get(name, self.lines.get("*"))

    def known_axes(self) -> dict[str, Axis]:
        """Every named axis, by name and by id."""
        named = {name: spec.axis() for name, spec in self.axes.items()}
        return named | {axis.id: axis for axis in named.values()}

    def printable(self) -> dict[str, Any]:
        """Every setting, with secrets masked."""
        shown = self.model_dump()
        shown["kafka"] = {key: "***" if is_secret(key) else value for key, value in self.kafka.items()}
        return shown
