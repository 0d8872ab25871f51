"""A key/value cache under a stream of requests: by pages, or in one stretch a sequence; slot by slot.

A slot holds the keys and values of one token in all layers. The three schemes are those of W. Kwon et
al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", arXiv 2309.06180:
pages with a block table (§4), a stretch of the longest length there may be (§3.1, "Orca (Max)"), and one
of just the length that the sequence will have, which no server knows beforehand ("Orca (Oracle)").

B sequences, N pages that the longest row of a block table lists.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from attnscope.kernels.errors import InvalidCall
from attnscope.models.shape import ModelShape
from attnscope.profiling.attention_memory import OWN
from attnscope.profiling.peak import cache_bytes
from attnscope.profiling.plan import Plan

Scheme = Literal["paged", "exact", "longest"]

STATES = ("free", "written", "reserved", "never")
"""What a slot may be, by the numbers of `Timeline.slots`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        number: Its own.
        arrival: The step at which it comes.
        prompt: Tokens of its prompt.
        generated: Tokens that will be generated.
    """

    number: int
    arrival: int
    prompt: int
    generated: int

    @property
    def tokens(self) -> int:
        """In the end."""
        return self.prompt + self.generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where one running sequence lies at one moment.

    Attributes:
        request: Whose.
        written: Slots that hold a token.
        wanted: Slots that will hold one in the end.
        stretches: The slots it holds: one stretch, or a page each, in the order of its tokens.
    """

    request: int
    written: int
    wanted: int
    stretches: tuple[range, ...]

    @property
    def held(self) -> int:
        """Slots that nobody else can have."""
        return sum(map(len, self.stretches))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The pool after one step.

    The slots are `written + reserved + never + unusable + free`, as in §3.1 of the paper.

    Attributes:
        step: From 0.
        placements: The running sequences, the longest running first.
        waiting: Requests that came and do not run.
        written: Slots that hold a token.
        reserved: Held, to be written later.
        never: Held, and never written: internal fragmentation.
        unusable: Not held, and as many as the first waiting request needs, but not in one stretch:
            external fragmentation; always 0 for pages.
        free: The other slots.
    """

    step: int
    placements: tuple[Placement, ...]
    waiting: tuple[int, ...]
    written: int
    reserved: int
    never: int
    unusable: int
    free: int

    @property
    def held(self) -> int:
        """Slots that running sequences hold."""
        return self.written + self.reserved + self.never


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """A stream of requests served to its end under one scheme.

    Attributes:
        scheme: paged, exact or longest.
        pool: Slots, in whole pages.
        page: Slots of a page; 1 where there are none.
        slot_bytes: Of one token in all layers.
        moments: One a step.
        preemptions: How often a sequence had to give its pages back and begin anew.
    """

    scheme: Scheme
    pool: int
    page: int
    slot_bytes: int
    moments: tuple[Moment, ...]
    preemptions: int

    @property
    def utilisation(self) -> float:
        """Slots that hold a token, as a share of those held; the mean over steps that hold some."""
        shares = [moment.written / moment.held for moment in self.moments if moment.held]
        return sum(shares) / len(shares)

    @property
    def mean_running(self) -> float:
        """Sequences that run, on the mean over the steps."""
        return sum(len(moment.placements) for moment in self.moments) / len(self.moments)

    def nbytes(self, what: str) -> np.ndarray:
        """Bytes over the steps: int64 `[steps]`.

        Args:
            what: written, reserved, never, unusable, free or held.
        """
        slots = [getattr(moment, what) for moment in self.moments]
        return np.array(slots, np.int64) * self.slot_bytes

    def moment(self, step: int) -> Moment:
        """The pool after a step.

        Raises:
            InvalidCall: The stream has ended before.
        """
        if not 0 <= step < len(self.moments):
            raise InvalidCall(f"There is no step {step}: the stream takes {len(self.moments)}.")
        return self.moments[step]

    def slots(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Every slot of the pool after a step: whose it is, and what it holds.

        Returns:
            Requests, −1 where it is free, and numbers of `STATES`; int64 `[pool]` both.

        Raises:
            InvalidCall: No such step.
        """
        owner, state = np.full(self.pool, -1, np.int64), np.zeros(self.pool, np.int64)
        for one in self.moment(step).placements:
            mine = np.concatenate([np.arange(part.start, part.stop) for part in one.stretches])
            owner[mine] = one.request
            state[mine] = STATES.index("never")
            state[mine[: one.wanted]] = STATES.index("reserved")
            state[mine[: one.written]] = STATES.index("written")
        return owner, state

    def block_table(self, step: int) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        """What `kernels.paged` reads: whose rows they are, the pages and the lengths.

        Returns:
            Requests; int64 `[B, N]`, −1 past a row's last page; int64 `[B]`.

        Raises:
            InvalidCall: The scheme has no pages, or no such step.
        """
        if self.scheme != "paged":
            raise InvalidCall(f"The scheme {self.scheme} has no pages.", "Ask the paged one.")
        placements = self.moment(step).placements
        most = max((len(one.stretches) for one in placements), default=0)
        table_BN = np.full((len(placements), most), -1, np.int64)
        for row, one in enumerate(placements):
            table_BN[row, : len(one.stretches)] = [
                stretch.start // self.page for stretch in one.stretches
            ]
        lengths_B = np.array([one.written for one in placements], np.int64)
        return tuple(one.request for one in placements), table_BN, lengths_B


def requests(
    count: int,
    *,
    seed: int = 0,
    gap: float = 4.0,
    prompt: tuple[int, int] = (16, 256),
    generated: tuple[int, int] = (8, 256),
) -> tuple[Request, ...]:
    """A stream of requests: arrivals of a Poisson process, lengths log-uniform, so that most are short.

    Args:
        count: How many.
        seed: Of all of them.
        gap: Steps between two arrivals, on the mean.
        prompt: Fewest and most tokens of a prompt.
        generated: Fewest and most tokens generated.

    Raises:
        InvalidCall: No request, or bounds without meaning.
    """
    for low, high in (prompt, generated):
        if not 1 <= low <= high:
            raise InvalidCall(f"Lengths must go from 1 or more to no less, got {low} to {high}.")
    if count < 1 or not 0 < gap < math.inf:
        raise InvalidCall(f"A stream needs a request and a gap above 0, got {count} and {gap}.")
    random, arrival = Random(seed), 0.0
    stream = []
    for number in range(count):
        lengths = (
            round(math.exp(random.uniform(math.log(low), math.log(high))))
            for low, high in (prompt, generated)
        )
        asked, answered = lengths
        stream.append(
            Request(number=number, arrival=int(arrival), prompt=asked, generated=answered)
        )
        arrival += random.expovariate(1 / gap)
    return tuple(stream)


def slot_bytes(shape: ModelShape, dtype: str) -> int:
    """Bytes of the keys and values of one token in all layers, as the calculator counts them.

    Args:
        shape: The model.
        dtype: Of the cache.

    Raises:
        InvalidCall: The model keeps no cache.
    """
    if not shape.has_cache:
        raise InvalidCall(f"{shape.architecture} keeps no cache of keys and values.")
    return cache_bytes(Plan(shape=shape, backend=OWN, batch=1, dtype=dtype, phase="prefill"), 1)
