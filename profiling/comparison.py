"""Runs side by side: what differs between what was measured, then what their figures are, as ratios to the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.record import RunRecord

ABSENT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something about the runs that is not the same for all.

    Attributes:
        name: Of what.
        values: A text a run.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of every run.

    Attributes:
        name: Of the figure.
        unit: "s", "tokens/s", "B" or "".
        values: One a run; None where it has none.
    """

    name: str
    unit: str
    values: tuple[float | None, ...]

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """Each value over the first run's; None where either is missing, or the first is 0."""
        first = self.values[0]
        return tuple(
            value / first if value is not None and first else None for value in self.values
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Some runs side by side.

    Attributes:
        runs: Their ids, in the order compared.
        differences: Those that matter most first.
        figures: Of all runs.
        cautions: Why the figures may not be comparable, in words.
    """

    runs: tuple[str, ...]
    differences: tuple[Difference, ...]
    figures: tuple[Figure, ...]
    cautions: tuple[str, ...]


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Compares runs with the first of them.

    Args:
        records: Two or more.

    Raises:
        InvalidCall: Fewer than two.
    """
    if len(records) < 2:
        raise InvalidCall(f"{len(records)} runs cannot be compared.", "Choose two or more.")
    facts = [_facts(record) for record in records]
    names = dict.fromkeys(name for fact in facts for name in fact)
    values = {name: tuple(fact.get(name, ABSENT) for fact in facts) for name in names}
    return Comparison(
        runs=tuple(record.id for record in records),
        differences=tuple(
            Difference(name=name, values=each)
            for name, each in values.items()
            if len(set(each)) > 1
        ),
        figures=tuple(
            Figure(name=name, unit=unit, values=tuple(map(read, records)))
            for name, unit, read in _FIGURES
        ),
        cautions=_cautions(records),
    )


def _facts(record: RunRecord) -> dict[str, str]:
    """What was measured, on what and how, in the order of what matters."""
    model, cell, machine = record.model, record.cell, record.machine
    ran = "" if record.attention is None else record.attention.paths
    failure = record.failure
    return {
        "backend": cell.backend,
        "phase": cell.phase,
        "batch": str(cell.batch),
        "length": str(cell.length),
        "dtype": cell.dtype,
        "outcome": "measured" if failure is None else f"{failure.outcome}: {failure.reason}",
        "kernel that ran": ran or ABSENT,
        "model": model.title,
        "model source": model.source,
        "model revision": model.revision or ABSENT,
        "model config": model.config_hash,
        "device": machine.device,
        "device name": machine.name,
        "device memory": str(machine.memory_bytes),
        "threads": str(machine.threads),
        "driver": machine.driver,
        **{f"version of {name}": version for name, version in machine.versions},
        **{f"set {name}": value for name, value in record.parameters},
        "seed": str(record.seed),
    }


_FIGURES: tuple[tuple[str, str, Callable[[RunRecord], float | None]], ...] = (
    ("median", "s", lambda run: run.timing and run.timing.median_s),
    ("10th percentile", "s", lambda run: run.timing and run.timing.p10_s),
    ("90th percentile", "s", lambda run: run.timing and run.timing.p90_s),
    ("rate", "tokens/s", lambda run: run.tokens_per_s),
    ("peak memory", "B", lambda run: run.peak and run.peak.allocated.value),
    ("peak beyond the weights", "B", lambda run: run.peak and run.peak.transient.value),
    ("energy", "J", lambda run: run.energy and run.energy.joules.value),
    ("relative error", "", lambda run: run.exactness and run.exactness.relative.value),
)


def _cautions(records: Sequence[RunRecord]) -> tuple[str, ...]:
    unsettled: dict[str, list[str]] = {}
    for record in records:
        if record.timing is not None and record.timing.unsettled:
            unsettled.setdefault(record.timing.unsettled, []).append(record.id[:6])
    found = [f"{', '.join(runs)}: {why}." for why, runs in unsettled.items()]
    if len({(record.machine.device, record.machine.name) for record in records}) > 1:
        found.append("They ran on different devices: the ratios compare the devices as well.")
    if len({record.model.config_hash for record in records}) > 1:
        found.append("They ran different models: the ratios compare the models as well.")
    if len({(record.cell.phase, record.cell.tokens) for record in records}) > 1:
        found.append("They computed different numbers of tokens: compare tokens per second.")
    return tuple(found)
