"""How the error of attention that approximates changes with its features, or rows, and with length.

L captured layers, H query heads (of the layer that has most).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from attnscope.kernels.backends.backend import Backend
from attnscope.kernels.backends.linear import Linear
from attnscope.kernels.backends.linformer import Linformer
from attnscope.kernels.backends.performer import Performer
from attnscope.kernels.errors import UnknownBackend
from attnscope.models.captured import Capture
from attnscope.models.hub import Progress
from attnscope.profiling.output_errors import Way, WayErrors, way_errors

NAMES = ("linear", "performer", "linformer")
SIZES = (16, 32, 64, 128, 256, 512, 1024)
"""Random features of a Performer, or rows of a Linformer."""
STANDARD = 256
"""Of the same, where it is the length that changes: what the backends have by themselves."""
MOST_TOKENS = 4096
SEEDS = 5
SECONDS = 10.0
_SHORTEST, _MOST_LENGTHS = 16, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The error at one size or length, over the seeds of what is random.

    Attributes:
        at: Features, rows, or tokens.
        seeds: How many were tried.
        mean_LH: float64 `[L, H]`, relative error of each head; NaN where there is none.
        least_LH: Of any seed.
        most_LH: Of any seed.
        heads: The mean of the heads: mean, least and most over the seeds.
    """

    at: int
    seeds: int
    mean_LH: NDArray[np.float64]
    least_LH: NDArray[np.float64]
    most_LH: NDArray[np.float64]
    heads: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What was found of one approximation.

    Attributes:
        tokens: Of the prompt, from the first, at which the sizes are compared.
        over_sizes: Empty where it has no size, or refuses every layer.
        over_lengths: At `STANDARD`; empty where it refuses every layer.
        refusal: Why it does; empty where it takes one.
    """

    tokens: int
    over_sizes: tuple[Point, ...] = ()
    over_lengths: tuple[Point, ...] = ()
    refusal: str = ""


def approximation(name: str, size: int = STANDARD, seed: int = 0) -> Backend:
    """An approximate backend at its size and seed; `linear` has neither.

    Raises:
        UnknownBackend: Another name.
        InvalidCall: A size below 1.
    """
    match name:
        case "linear":
            return Linear()
        case "performer":
            return Performer(features=size, seed=seed)
        case "linformer":
            return Linformer(rank=size, seed=seed)
    raise UnknownBackend(f"{name!r} does not approximate: linear, performer and linformer do.")


def sweep(
    shown: Capture,
    name: str,
    *,
    sequence: int = 0,
    seconds: float = SECONDS,
    clock: Callable[[], float] = monotonic,
    progress: Progress | None = None,
) -> Sweep:
    """The error of an approximation over its size and over prefixes of the prompt.

    Args:
        shown: Made with `values=True`; the first `MOST_TOKENS` tokens of its prompt are judged.
        name: `linear`, `performer` or `linformer`.
        sequence: Which of its prompts.
        seconds: One seed is always tried; of `SEEDS`, as many more as should fit.
        clock: Seconds, never going back.
        progress: Called often with the share done; what it raises ends the work.

    Raises:
        UnknownBackend: Another name.
        CaptureMissing: The capture holds no values.
        InvalidCall: No such sequence.
    """
    tokens = min(len(shown.token_ids[sequence]), MOST_TOKENS)
    sizes = () if name == "linear" else SIZES
    lengths, most = _lengths(tokens), SEEDS if sizes else 1
    began, rounds = clock(), list[_Round]()
    for seed in range(most):
        if rounds and (clock() - began) * (1 + 1 / len(rounds)) > seconds:
            break
        told = _parts(progress, seed, most, 1 + len(lengths))
        ways = [Way(backend=approximation(name, size, seed)) for size in sizes]
        by_size = way_errors(shown, ways, length=tokens, sequence=sequence, progress=told[0])
        way = Way(backend=approximation(name, STANDARD, seed))
        by_length = [
            way_errors(shown, [way], length=length, sequence=sequence, progress=part)[0]
            for length, part in zip(lengths, told[1:], strict=True)
        ]
        if refusal := _refused(by_length[-1]):
            return Sweep(tokens=tokens, refusal=refusal)
        rounds.append((by_size, by_length))
    if progress is not None:
        progress(1.0, "done")
    return Sweep(
        tokens=tokens,
        over_sizes=_points(sizes, [by_size for by_size, _ in rounds]),
        over_lengths=_points(lengths, [by_length for _, by_length in rounds]),
    )


_Round = tuple[Sequence[WayErrors], Sequence[WayErrors]]
"""Of one seed: an error a size, and one a length."""


def _lengths(tokens: int) -> list[int]:
    """The prompt, its half, and so on, ascending."""
    found = [tokens >> halved for halved in range(_MOST_LENGTHS)]
    return sorted(length for length in found if length >= min(_SHORTEST, tokens))


def _points(places: Sequence[int], rounds: Sequence[Sequence[WayErrors]]) -> tuple[Point, ...]:
    found = []
    for at, errors in zip(places, zip(*rounds, strict=True), strict=True):
        error_SLH = np.stack([each.error_LH for each in errors])
        heads_S = np.nanmean(error_SLH, axis=(1, 2))
        found.append(
            Point(
                at=at,
                seeds=len(errors),
                mean_LH=error_SLH.mean(0),
                least_LH=error_SLH.min(0),
                most_LH=error_SLH.max(0),
                heads=(float(heads_S.mean()), float(heads_S.min()), float(heads_S.max())),
            )
        )
    return tuple(found)


def _refused(errors: WayErrors) -> str:
    return next(iter(errors.refusals.values())) if np.isnan(errors.off_LH).all() else ""


def _parts(progress: Progress | None, done: int, rounds: int, count: int) -> list[Progress | None]:
    """A callback for each of as many equal parts of a round."""
    if progress is None:
        return [None] * count

    def told(at: int, share: float, words: str) -> None:
        progress((done + (at + share) / count) / rounds, words)

    return [partial(told, at) for at in range(count)]
