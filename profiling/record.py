"""What one measurement found, with everything needed to repeat it. A record never changes."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling.attention_path import Executed
from attnscope.profiling.energy import Energy
from attnscope.profiling.json_data import from_data, to_data
from attnscope.profiling.latency import Timing
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory import MemoryPeak
from attnscope.profiling.memory_timeline import MemoryTimeline
from attnscope.profiling.part_times import PartTimes
from attnscope.profiling.sources import Sample
from attnscope.profiling.trace import Kernel

SCHEMA = 1

Phase = Literal["prefill", "decode"]
Outcome = Literal["out_of_memory", "refused", "wrong", "skipped", "failed"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is to be measured on a model: one point of a sweep.

    Attributes:
        backend: A name of `kernels.registry`.
        phase: "prefill" reads a prompt of `length` tokens and fills the cache; "decode" computes
            one token against a cache of `length`.
        batch: Sequences, all of one length.
        length: Tokens.
        dtype: "float32", "bfloat16" or "float16".
    """

    backend: str
    phase: Phase
    batch: int
    length: int
    dtype: str

    @property
    def tokens(self) -> int:
        """Tokens that one run computes."""
        return self.batch * (self.length if self.phase == "prefill" else 1)

    @property
    def keys(self) -> int:
        """Positions of a sequence in all: in a decoding step, with the new one."""
        return self.length + (self.phase == "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsed:
    """Which model.

    Attributes:
        source: "demo", a hub id, or a folder.
        revision: The commit of a hub model.
        title: A short name for people.
        architecture: transformers' name of the model type.
        config_hash: SHA-256 of the config, less what does not change the computation.
        parameters: How many.
        weight_bytes: Of weights and buffers.
    """

    source: str
    revision: str | None
    title: str
    architecture: str
    config_hash: str
    parameters: int
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What it ran on, and with.

    Attributes:
        device: PyTorch's name, "cuda:0" or "cpu".
        name: The GPU's or processor's own.
        memory_bytes: Of the device.
        threads: That PyTorch computes with on the CPU.
        driver: NVIDIA's driver, or the reason why it is not known.
        versions: Of python, torch, triton, transformers, attnscope and CUDA: name and version, or
            the reason why there is none.
    """

    device: str
    name: str
    memory_bytes: int
    threads: int
    driver: str
    versions: Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What the device and the machine did during the measurement.

    Attributes:
        samples: In order.
        missing: Why a figure of the samples is not available, by its name.
        load_before: Runnable processes of the machine before the run, averaged over a minute.
    """

    samples: tuple[Sample, ...]
    missing: Pairs
    load_before: float

    @property
    def throttled(self) -> tuple[str, ...]:
        """What held the clocks down at some moment."""
        return tuple(
            dict.fromkeys(words for each in self.samples for words in each.throttled or ())
        )

    @property
    def others(self) -> int:
        """The most other processes that computed on the device at one moment."""
        return max((each.others or 0 for each in self.samples), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """How far the attention was from dense attention in float64 on the same q, k, v.

    Attributes:
        relative: ‖out − reference‖ / ‖reference‖, of the worst layer.
        largest: Largest absolute difference of any layer.
        layer: The worst layer.
        rows: Queries judged in each layer.
    """

    relative: Measured
    largest: Measured
    layer: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The work of one run, and the ceilings that it was held against before it ran.

    Attributes:
        flops: That it computes, a multiply-add as 2.
        nbytes: That it must read and write at least.
        flops_per_second: Of the device at most, in the cell's dtype.
        bytes_per_second: Likewise.
        origin: Of the two: "measured" on the device, or "listed" by its maker.
    """

    flops: int
    nbytes: int
    flops_per_second: float
    bytes_per_second: float
    origin: str

    @property
    def seconds(self) -> float:
        """The least time (roofline, Williams et al. 2009)."""
        return max(self.flops / self.flops_per_second, self.nbytes / self.bytes_per_second)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no figure: a result like any other.

    Attributes:
        outcome: What happened.
        reason: In words.
        remedy: What to do about it.
    """

    outcome: Outcome
    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One measurement of one cell.

    Attributes:
        created: When it ended, UTC, ISO 8601 with microseconds.
        model: Which model.
        cell: What was measured.
        parameters: Of the backend and of the measurement, as they were set.
        seed: Of the tokens.
        machine: On what.
        predicted_bytes: Peak memory predicted before the run, None where nobody predicted.
        timing: None where it failed.
        peak: Likewise, as is all that follows.
        energy: Of the device while latency was timed, warm-up included.
        parts: Time by module.
        timeline: Memory by kind over one run.
        kernels: That ran, those of most time first.
        attention: The attention path that ran.
        exactness: None where it was not judged.
        telemetry: What the device and the machine did.
        failure: Why there is no figure; None where there is one.
        notes: What was not measured, and why.
        prediction: Of the time, made before the run; None where nobody predicted.
        schema: Of this record.
    """

    created: str
    model: ModelUsed
    cell: Cell
    parameters: Pairs
    seed: int
    machine: Machine
    predicted_bytes: int | None
    timing: Timing | None
    peak: MemoryPeak | None
    energy: Energy | None
    parts: PartTimes | None
    timeline: MemoryTimeline | None
    kernels: tuple[Kernel, ...]
    attention: Executed | None
    exactness: Exactness | None
    telemetry: Telemetry
    failure: Failure | None
    notes: tuple[str, ...] = ()
    prediction: Prediction | None = None
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """Of the content, the time included: 16 hexadecimal digits."""
        return _digest(self._told())[:16]

    @property
    def key(self) -> str:
        """Of what was asked, whenever it was: see `cell_key`."""
        return cell_key(self.model, self.machine, self.cell, self.parameters, self.seed)

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens computed a second, at the median; None where it failed."""
        return None if self.timing is None else self.cell.tokens / self.timing.median_s

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader of its figures must know."""
        flags = []
        if self.attention is not None:
            flags.append(self.attention.fallback)
        if self.timing is not None:
            flags += [self.timing.unsettled, "cut short by its budget" * self.timing.shortened]
        if self.telemetry.throttled:
            flags.append(f"clocks held down: {', '.join(self.telemetry.throttled)}")
        if self.telemetry.others:
            flags.append(f"{self.telemetry.others} other processes computed on the device")
        return tuple(filter(None, flags))

    def to_json(self) -> str:
        """The record as one line, with its id."""
        return json.dumps({"id": self.id, **self._told()}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "RunRecord":
        """The record that `to_json` wrote.

        Raises:
            RecordUnreadable: It is damaged, changed, or of another schema.
        """
        try:
            told = json.loads(text)
        except ValueError as error:
            raise RecordUnreadable(f"This is no record: {error}.") from error
        if not isinstance(told, dict) or "schema" not in told:
            raise RecordUnreadable("This is no record: it names no schema.")
        if told["schema"] != SCHEMA:
            raise RecordUnreadable(
                f"The record has schema {told['schema']!r}, and this version reads {SCHEMA}.",
                "Open it with the version of Attnscope that wrote it, or a newer one.",
            )
        named = told.pop("id", None)
        told.setdefault("prediction", None)
        try:
            record = from_data(cls, told)
        except ValueError as error:
            raise RecordUnreadable(f"The record is damaged: {error}.") from error
        if named != record.id:
            raise RecordUnreadable(
                f"The record was changed after it was written: its content is {record.id}, "
                f"and it calls itself {named!r}."
            )
        return record

    def _told(self) -> dict[str, Any]:
        told = to_data(self)
        if self.prediction is None:
            # As records were before times were predicted, so that they keep their ids.
            del told["prediction"]
        return told


def cell_key(model: ModelUsed, machine: Machine, cell: Cell, parameters: Pairs, seed: int) -> str:
    """What is asked, in 16 hexadecimal digits: by them a sweep knows what it has measured.

    Args:
        model: Which; its title and its size do not count.
        machine: Its device and the device's name count; driver and versions do not.
        cell: Which point.
        parameters: How it is measured.
        seed: Of the tokens.
    """
    which = {"source": model.source, "revision": model.revision, "config": model.config_hash}
    where = {"device": machine.device, "name": machine.name}
    asked = {"model": which, "machine": where, "cell": to_data(cell)}
    return _digest({**asked, "parameters": parameters, "seed": seed})[:16]


def now() -> str:
    """The time of a record: UTC, with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
