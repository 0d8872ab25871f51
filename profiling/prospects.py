"""Candidates with their numbers, the best first: predicted memory and time, corrected by what was measured.

What fits is the calculator's, the least time the roofline's (Williams et al. 2009); where runs of the
model on the device are known, each time is stretched by how far those stayed behind their roofline.

n tokens.
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log

import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import ModelShape
from attnscope.profiling.candidates import Candidate, Excluded, Workload, candidates, is_fused
from attnscope.profiling.hardware import DeviceSpec
from attnscope.profiling.laid_patterns import reach
from attnscope.profiling.peak import peak_bytes
from attnscope.profiling.plan import Plan
from attnscope.profiling.roofline import Work, work
from attnscope.profiling.store_rows import RunRow

PHASES: tuple[Phase, ...] = ("prefill", "decode")
WORKLOADS: tuple[Workload, ...] = ("document", "generation", "multimodal", "retrieval")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What advice is asked for.

    Attributes:
        shape: The model.
        source: Its name, by which its runs are known.
        device: Memory and rates.
        where: The device as backends are asked: of type "cuda" or "cpu".
        length: Tokens a sequence; in a decoding step, with the new one.
        batch: Sequences.
        dtype: Compute dtype.
        phase: prefill or decode.
        free_bytes: Of the device's memory; all of it when None.
        tolerated: Relative error of attention's output that is tolerated; 0 demands exactness.
        workload: What the model is used for.
        errors: Measured relative errors on the model's own q, k and v, by candidate.
        runs: Measured ones that may be quoted, of any model and device.
    """

    shape: ModelShape
    source: str
    device: DeviceSpec
    where: torch.device
    length: int
    batch: int = 1
    dtype: str = "bfloat16"
    phase: Phase = "prefill"
    free_bytes: int | None = None
    tolerated: float = 0.0
    workload: Workload = "document"
    errors: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[RunRow, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 1 or self.batch < 1:
            raise InvalidCall(
                f"length and batch must be at least 1, got {self.length} and {self.batch}."
            )
        if self.phase not in PHASES:
            raise InvalidCall(f"No phase {self.phase!r} to advise on.", "Use prefill or decode.")
        if self.workload not in WORKLOADS:
            raise InvalidCall(
                f"No workload {self.workload!r}.", f"Use one of {', '.join(WORKLOADS)}."
            )
        if not 0 <= self.tolerated <= 1:
            raise InvalidCall(f"A tolerated error is from 0 to 1, got {self.tolerated:g}.")
        if self.dtype not in self.device.peak_flops:
            raise InvalidCall(
                f"{self.device.name} has no published rate in {self.dtype}.",
                f"Use one of {', '.join(self.device.peak_flops)}.",
            )

    @property
    def room_bytes(self) -> int:
        """Bytes there are."""
        memory = self.device.memory_bytes
        return memory if self.free_bytes is None else min(self.free_bytes, memory)

    @cached_property
    def field(self) -> tuple[tuple[Candidate, ...], tuple[Excluded, ...]]:
        """Candidates, and what is none."""
        return candidates(
            self.shape,
            where=self.where,
            dtype=self.dtype,
            phase=self.phase,
            workload=self.workload,
            length=self.length,
            batch=self.batch,
        )

    def plan(self, candidate: Candidate) -> Plan:
        """What the calculator is asked of a candidate."""
        return Plan(
            shape=candidate.shape,
            backend=candidate.backend,
            batch=self.batch,
            dtype=self.dtype,
            phase=self.phase,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """A measured run of a candidate on the device.

    Attributes:
        row: The run.
        behind: Its median over the roofline time of the same cell.
    """

    row: RunRow
    behind: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """A candidate with its numbers.

    Attributes:
        candidate: The candidate.
        nbytes: Peak memory, the calculator's.
        fits: Whether there is room.
        least_s: The roofline time.
        work: What that comes from.
        expected_s: The roofline time, stretched by what was measured.
        quoted: The measured run nearest in length; None where there is none.
        error: Relative error of the output, measured; None for an exact one, and where nobody measured.
        reach: Of the first `REACH_TOKENS` tokens, those that the last can hear of; None for an exact one
            and for what approximates.
        is_fused: Whether its scores stay on the chip; see `candidates.is_fused`.
    """

    candidate: Candidate
    nbytes: int
    fits: bool
    least_s: float
    work: Work
    expected_s: float
    quoted: Quoted | None
    error: float | None
    reach: int | None
    is_fused: bool

    @property
    def rank(self) -> tuple[bool, float, int, bool]:
        """By what the first is chosen: that it fits, its time, its memory, that it is one kernel; then the registry."""
        # Three digits, as they are shown: what differs by less is no difference to choose by.
        return not self.fits, float(f"{self.expected_s:.3g}"), self.nbytes, not self.is_fused


def error_of(request: Request, candidate: Candidate) -> float | None:
    """The relative error that is known of a candidate: 0 of an exact one, None where nobody measured."""
    return 0.0 if candidate.exact else request.errors.get(candidate.key)


def _tolerable(request: Request) -> Iterator[Candidate]:
    for candidate in request.field[0]:
        error = error_of(request, candidate)
        if error is not None and error <= request.tolerated:
            yield candidate


def intolerable(request: Request) -> Iterator[Excluded]:
    """Candidates that change the result by more than is tolerated, or by nobody knows how much."""
    for one in request.field[0]:
        error = error_of(request, one)
        if request.tolerated == 0 and not one.exact:
            reason, error = "it changes the result, and exactness is demanded", None
        elif error is None:
            reason = "it changes the result, and nobody has measured by how much on this model"
        elif error > request.tolerated:
            reason = (
                f"it changes the output by {error:.1%}, and {request.tolerated:.1%} is tolerated"
            )
        else:
            continue
        yield Excluded(key=one.key, title=one.title, reason=reason, family=one.family, error=error)


def ranked(request: Request) -> tuple[tuple[Prospect, ...], float]:
    """The tolerable candidates, the best first, and by how much unmeasured times are stretched."""
    found = list(_tolerable(request))
    quoted = {one.key: _quoted(request, one) for one in found}
    known = [each.behind for each in quoted.values() if each is not None]
    stretch = statistics.median(known) if known else 1.0
    prospects = [_prospect(request, one, quoted[one.key], stretch) for one in found]
    return tuple(sorted(prospects, key=lambda each: each.rank)), stretch


def _prospect(
    request: Request, candidate: Candidate, quoted: Quoted | None, stretch: float
) -> Prospect:
    plan = request.plan(candidate)
    done, nbytes = work(plan, request.length), peak_bytes(plan, request.length)
    least = _least_s(request, done)
    return Prospect(
        candidate=candidate,
        nbytes=nbytes,
        fits=nbytes <= request.room_bytes,
        least_s=least,
        work=done,
        expected_s=least * (stretch if quoted is None else quoted.behind),
        quoted=quoted,
        error=None if candidate.exact else error_of(request, candidate),
        reach=None if candidate.pattern is None else reach(candidate.shape),
        is_fused=is_fused(candidate.backend, request.where),
    )


def _least_s(request: Request, done: Work) -> float:
    spec = request.device
    return done.seconds(
        flops_per_second=spec.peak_flops[request.dtype], bytes_per_second=spec.bandwidth
    )


def _quoted(request: Request, candidate: Candidate) -> Quoted | None:
    """The measured run of the candidate on the device that is nearest in length, then in batch, then newest."""
    if candidate.pattern is not None:
        return None
    names = {request.device.name, request.device.reported}
    rows = [
        row
        for row in request.runs
        if row.median_s
        and row.model_source == request.source
        and row.device_name in names
        and (row.backend, row.phase, row.dtype) == (candidate.backend, request.phase, request.dtype)
    ]
    if not rows:
        return None
    newest = sorted(rows, key=lambda row: row.created, reverse=True)
    row = min(
        newest,
        key=lambda row: (abs(log(row.length / request.length)), abs(row.batch - request.batch)),
    )
    plan = replace(request.plan(candidate), batch=row.batch)
    # A step of a measured run reads its prompt's cache and adds a token to it.
    length = row.length + (request.phase == "decode")
    assert row.median_s is not None
    return Quoted(row=row, behind=row.median_s / _least_s(request, work(plan, length)))
