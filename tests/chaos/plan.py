"""How a run goes, and what was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .standstills import Standstills

Guarantee = Literal["exactly_once", "at_least_once"]
FRAMES_PER_KILL = 100  # that are recorded; only those are sent that are needed
WANTED_S = 5.0  # after the kill of a worker


@dataclass
class Plan:
    """How a run goes.

    Attributes:
        kills: SIGKILLs of workers, replayers, the trainer and brokers together.
        frames: recorded for all lines together; sending stops with the kills. 0: FRAMES_PER_KILL for each kill.
        rate: spectra a second, of each line.
        bound_s: the longest standstill after a fault that is allowed, on kafka.
        broker: noida has transactions and keeps its data over an orderly restart, but no member of a group can take
            over from another, so each worker has a fixed partition. tansu has groups. kafka: three brokers, which are
            killed as well. cluster: a real one, which is left alone.
        restarts: of noida or tansu.
    """

    guarantee: Guarantee
    kills: int = 100
    frames: int = 0
    broker: Literal["noida", "tansu", "kafka", "cluster"] = "noida"
    restarts: int = 2
    seed: int = 0
    rate: float = 20.0
    bound_s: float = 15.0
    bound_in_a_row_s: float = 120.0  # of a line that is hit again and again before it recovers: it gets further
    mean_s: float = 2.0  # from when there is somebody to kill to the kill; of brokers: see `brokers`

    def __post_init__(self) -> None:
        self.frames = self.frames or FRAMES_PER_KILL * self.kills

    @property
    def groups(self) -> bool:
        return self.broker != "noida"

    @property
    def is_real(self) -> bool:
        """Whether the broker can do all that Kafka can, so that the defaults of Tamis must do."""
        return self.broker in ("kafka", "cluster")


class Fault(NamedTuple):
    kind: str
    at_s: float  # by the clock of time.time()
    is_kill: bool = True


@dataclass
class Found:
    """The checker's findings.

    Attributes:
        unequal: spectra whose copies have different result ids.
        buffered: spectra that the trainer's buffer has stored; repeated ones count once.
        exits: by process and status, those that ended by themselves.
    """

    plan: Plan
    frames: int = 0
    spectra: int = 0
    lost: int = 0
    duplicated: int = 0
    unequal: int = 0
    unsent: int = 0
    sent_twice: int = 0
    buffered: int = 0
    faults: list[Fault] = field(default_factory=list)
    exits: Counter[str] = field(default_factory=Counter)
    standstills: Standstills = field(default_factory=Standstills)

    @property
    def kills(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.faults if fault.is_kill)

    @property
    def kept(self) -> bool:
        """Whether the guarantee was kept, and the trainer's, and the bound on Apache Kafka."""
        once = self.plan.guarantee == "at_least_once" or not self.duplicated
        stood, plan = self.standstills, self.plan
        in_time = stood.longest_s <= plan.bound_s and stood.whole_s <= plan.bound_in_a_row_s
        in_time |= plan.broker != "kafka"
        return once and in_time and not (self.lost or self.unequal) and self.buffered == self.spectra

    def __str__(self) -> str:
        name = self.plan.guarantee
        ended = ", ".join(f"{what}: {n}" for what, n in sorted(self.exits.items())) or "none"
        return (
            f"{name}: standstills on {self.plan.broker}; on kafka at most {self.plan.bound_s:g} s are allowed, "
            f"{self.plan.bound_in_a_row_s:g} s for several in a row, and for a worker {WANTED_S:g} s wanted\n"
            f"{self.standstills}\n"
            f"{name}: ended by themselves: {ended}; spectra {self.spectra}, of which never in the topic {self.unsent}, "
            f"sent twice {self.sent_twice}, with unequal result ids {self.unequal}, in the trainer's buffer "
            f"{self.buffered}\n"
            f"{name}: kills={self.kills.total()} frames={self.frames} lost={self.lost} duplicated={self.duplicated} "
            f"longest_standstill={self.standstills.longest_s:.1f}s in_a_row={self.standstills.whole_s:.1f}s"
        )
