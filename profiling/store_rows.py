"""One run as a row of the history: what it is found by and what a table shows, without the record's samples."""

import math
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

from sqlalchemy import BigInteger, Column, Double, Index, MetaData, Table, Text

from attnscope.kernels.errors import RecordUnreadable
from attnscope.profiling.record import RunRecord

MEASURED = "measured"
"""The outcome of a run that has figures; others are those of `record.Failure`."""

_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """What the history knows of a run without opening its record.

    Attributes:
        id: Of the record.
        created: UTC, ISO 8601 with microseconds.
        model_title: For people.
        model_source: "demo", a hub id, or a folder.
        model_revision: The commit of a hub model.
        config_hash: Of the model's config.
        backend: As asked for.
        phase: "prefill" or "decode".
        batch: Sequences.
        length: Tokens.
        dtype: As in `record.Cell`.
        device: PyTorch's name.
        device_name: The device's own.
        outcome: `MEASURED`, or what happened instead.
        reason: Why there are no figures; empty where there are.
        median_s: None where it failed, as are the other figures.
        p10_s: 10th percentile.
        p90_s: 90th percentile.
        tokens_per_s: At the median.
        peak_bytes: The allocator's, or on a CPU what was counted; None too where it is not known.
        kernel: The attention path that ran; empty where nobody can say.
        flags: What a reader of the figures must know.
        version: Of Attnscope, that measured it.
        imported_from: Name of the file it came with; empty for one's own.
    """

    id: str
    created: str
    model_title: str
    model_source: str
    model_revision: str | None
    config_hash: str
    backend: str
    phase: str
    batch: int
    length: int
    dtype: str
    device: str
    device_name: str
    outcome: str
    reason: str
    median_s: float | None
    p10_s: float | None
    p90_s: float | None
    tokens_per_s: float | None
    peak_bytes: float | None
    kernel: str
    flags: str
    version: str
    imported_from: str

    @property
    def is_measured(self) -> bool:
        """Whether it has figures."""
        return self.outcome == MEASURED


def row_of(record: RunRecord, imported_from: str = "") -> RunRow:
    """The row of a record.

    Args:
        record: Any, also one that a stranger wrote.
        imported_from: Name of its file.

    Raises:
        RecordUnreadable: Its values contradict each other, or no database can hold them.
    """
    try:
        row = _row(record, imported_from)
        _check(row)
        record.to_json().encode()
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise RecordUnreadable(f"The record holds what no measurement gives: {error}.") from error
    return row


def _row(record: RunRecord, imported_from: str) -> RunRow:
    model, cell, machine = record.model, record.cell, record.machine
    timing, peak, failure = record.timing, record.peak, record.failure
    created = datetime.fromisoformat(record.created).astimezone(UTC)
    return RunRow(
        id=record.id,
        created=created.isoformat(timespec="microseconds"),
        model_title=model.title,
        model_source=model.source,
        model_revision=model.revision,
        config_hash=model.config_hash,
        backend=cell.backend,
        phase=cell.phase,
        batch=cell.batch,
        length=cell.length,
        dtype=cell.dtype,
        device=machine.device,
        device_name=machine.name,
        outcome=MEASURED if failure is None else failure.outcome,
        reason="" if failure is None else failure.reason,
        median_s=None if timing is None else timing.median_s,
        p10_s=None if timing is None else timing.p10_s,
        p90_s=None if timing is None else timing.p90_s,
        tokens_per_s=record.tokens_per_s,
        peak_bytes=None if peak is None else peak.allocated.value,
        kernel="" if record.attention is None else record.attention.paths,
        flags="; ".join(record.flags),
        version=dict(record.machine.versions).get("attnscope", ""),
        imported_from=imported_from,
    )


def _check(row: RunRow) -> None:
    for name, value in asdict(row).items():
        if isinstance(value, str):
            # PostgreSQL has no text with NUL, and neither has half of a surrogate pair.
            value.encode()
            if "\0" in value:
                raise ValueError(f"{name} holds a NUL character")
        elif value is not None and not (math.isfinite(value) and 0 <= value <= _LARGEST):
            raise ValueError(f"{name} is {value}")
    if row.length < 1 or row.batch < 1:
        raise ValueError(f"a batch of {row.batch} with {row.length} tokens")
    if row.is_measured != (row.median_s is not None):
        raise ValueError(f"its outcome is {row.outcome}, its median {row.median_s}")


_HINTS = get_type_hints(RunRow)

KINDS: dict[str, type] = {
    each.name: (get_args(_HINTS[each.name]) or (_HINTS[each.name],))[0] for each in fields(RunRow)
}
"""What each column holds, where it holds something: str, int or float."""


def _column(name: str) -> Column[Any]:
    types = {str: Text, int: BigInteger, float: Double}
    nullable = type(None) in get_args(_HINTS[name])
    return Column(name, types[KINDS[name]], primary_key=name == "id", nullable=nullable)


RUNS = Table(
    "attnscope_runs",
    MetaData(),
    *map(_column, KINDS),
    Column("record", Text, nullable=False),
    Index("attnscope_runs_created", "created"),
)
"""The newest schema; `migrations/` says how older ones become it."""
