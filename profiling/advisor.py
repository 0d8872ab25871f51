"""Which way of attending to choose, the runner-up, and what would change the answer.

Nothing here is a table of advice: candidates are ranked by their numbers (profiling/prospects.py), and what
would change the answer is solved for, by asking again.

n tokens.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.candidates import Excluded
from attnscope.profiling.prospects import Prospect, Request, intolerable, ranked
from attnscope.profiling.roofline import work
from attnscope.profiling.solver import MOST, largest_batch_of, longest_of

_LEAST, _FARTHEST = 64, 1 << 20
"""Tokens; no change is looked for outside."""


What = Literal["longer", "shorter", "memory", "fits", "batch", "phase", "exactness", "attention"]
_STEPS: Mapping[What, Callable[[int], int]] = {
    "longer": lambda length: length * 2,
    "shorter": lambda length: length // 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that would change the answer.

    Attributes:
        what: "longer" or "shorter" (tokens), "memory" (bytes), "fits" (tokens), "batch"
            (sequences), "phase", "exactness" (relative error), "attention" (tokens).
        at: Where it changes; None where that is no number.
        first: Title of what would be first then; empty where nothing would fit, None where nobody looked.
    """

    what: What
    at: float | None
    first: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The answer.

    Attributes:
        request: What was asked.
        ranked: Candidates, the best first; never empty.
        excluded: What was left out, and why.
        stretch: By how much unmeasured candidates' roofline times are stretched; 1 without runs.
        changes: What would change it.
        beyond: Whether the length lies where attention is no longer the lesser part, or nothing
            fits: state-space models lie past it.
    """

    request: Request
    ranked: tuple[Prospect, ...]
    excluded: tuple[Excluded, ...]
    stretch: float
    changes: tuple[Change, ...]
    beyond: bool

    @property
    def first(self) -> Prospect:
        """The recommended one, which may not fit where nothing does."""
        return self.ranked[0]

    @property
    def runner_up(self) -> Prospect | None:
        """The next that fits, where there is one."""
        return next((each for each in self.ranked[1:] if each.fits), None)


def advise(request: Request) -> Advice:
    """The ranked answer, and what would change it.

    Raises:
        InvalidCall: Nothing can run it there.
    """
    found, stretch = ranked(request)
    if not found:
        reasons = "; ".join(f"{one.title}: {one.reason}" for one in request.field[1])
        raise InvalidCall(f"Nothing runs this model's attention there: {reasons}.")
    changes = tuple(_changes(request, found))
    half = next((change.at for change in changes if change.what == "attention"), None)
    return Advice(
        request=request,
        ranked=found,
        excluded=(*request.field[1], *intolerable(request)),
        stretch=stretch,
        changes=changes,
        beyond=not found[0].fits or (half is not None and request.length >= half),
    )


def _first(request: Request) -> Prospect | None:
    """What would be recommended, where anything fits."""
    return next((each for each in ranked(request)[0] if each.fits), None)


def _leading(request: Request, found: tuple[Prospect, ...]) -> Request:
    """The request among the best of each family: the others of it differ in numbers, and are behind here."""
    best: dict[str, str] = {}
    for each in found:
        best.setdefault(each.candidate.family, each.candidate.key)
    kept = {key: error for key, error in request.errors.items() if key in best.values()}
    return replace(request, errors=kept)


def _changes(request: Request, found: tuple[Prospect, ...]) -> Iterator[Change]:
    first = found[0]
    yield from _exactness(request, first)
    request = _leading(request, found)
    plan = request.plan(first.candidate)
    longest = longest_of(plan, request.room_bytes)
    if longest < MOST:
        yield _change("fits", longest, replace(request, length=longest + 1))
    if first.fits:
        for what, step in _STEPS.items():
            length = _flip(request, first, step)
            if length is not None and length != longest + 1:
                yield _change(what, length, replace(request, length=length))
        yield _change("memory", first.nbytes, replace(request, free_bytes=first.nbytes - 1))
        batch = largest_batch_of(plan, request.room_bytes, request.length)
        yield _change("batch", batch, replace(request, batch=batch + 1))
    other = "decode" if request.phase == "prefill" else "prefill"
    if other == "prefill" or request.shape.has_cache:
        yield _change("phase", None, replace(request, phase=other))
    half = _attention_leads(request, first)
    if half is not None:
        yield Change(what="attention", at=half, first=None)


def _flip(request: Request, first: Prospect, step: Callable[[int], int]) -> int | None:
    """The nearest length, found by doubling or halving and then by bisection, at which another is first."""

    def other(length: int) -> bool:
        then = _first(replace(request, length=length))
        return then is None or then.candidate.key != first.candidate.key

    same, far = request.length, step(request.length)
    while _LEAST <= far <= _FARTHEST and not other(far):
        same, far = far, step(far)
    if not _LEAST <= far <= _FARTHEST:
        return None
    while abs(far - same) > 1:
        middle = (same + far) // 2
        same, far = (same, middle) if other(middle) else (middle, far)
    return far


def _exactness(request: Request, first: Prospect) -> Iterator[Change]:
    """The least tolerated error at which another would be first, and what is when none is tolerated."""
    if request.tolerated > 0:
        exact = _change("exactness", 0.0, replace(request, tolerated=0.0))
        if exact.first != first.candidate.title:
            yield exact
    for error in sorted(error for error in request.errors.values() if error <= 1):
        if error <= request.tolerated:
            continue
        then = _first(replace(request, tolerated=error))
        if then is not None and then.candidate.key != first.candidate.key:
            yield Change(what="exactness", at=error, first=then.candidate.title)
            return


def _attention_leads(request: Request, first: Prospect) -> int | None:
    """The first length at which attention does, or moves in a step, as much as all the rest of the pass."""
    plan = request.plan(first.candidate)

    def leads(length: int) -> bool:
        done = work(plan, length)
        if request.phase == "decode":
            return done.attention_bytes >= done.weight_bytes
        return done.attention_flops >= done.matmul_flops

    low, high = 1, _FARTHEST
    if not leads(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if leads(middle) else (middle, high)
    return high


def _change(what: What, at: float | None, then: Request) -> Change:
    """A change, with what is first once it has happened."""
    if then.length > _FARTHEST:
        return Change(what=what, at=at, first=None)
    found = _first(then)
    return Change(what=what, at=at, first="" if found is None else found.candidate.title)
