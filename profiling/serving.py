"""Serving a stream of requests from a pool of slots, step by step; the words are those of `paging`."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.paging import Moment, Placement, Request, Scheme, Timeline

_MOST_STEPS = 100_000


def serve(
    stream: Sequence[Request],
    scheme: Scheme,
    *,
    pool: int,
    page: int = 16,
    longest: int | None = None,
    slot_bytes: int = 1,
) -> Timeline:
    """Serves a stream to its end, first come, first served.

    In each step a request that fits is let in and its prompt written, then every running sequence
    writes one token. By pages, a page is taken when the last one is full; where none is left the
    sequence that came in last gives its pages back and waits to begin anew, its text kept (§4.5).

    Args:
        stream: In the order of arrival.
        scheme: paged, exact or longest.
        pool: Slots there are.
        page: Slots of a page; the pool holds as many whole pages as fit.
        longest: Tokens that "longest" reserves for each; those of the longest request when None.
        slot_bytes: Of one slot, for `Timeline.nbytes`.

    Raises:
        InvalidCall: A request that can never fit, or sizes without meaning.
    """
    if scheme not in get_args(Scheme):
        raise InvalidCall(f"No scheme {scheme!r}.", f"Use {', '.join(get_args(Scheme))}.")
    if not stream or min(pool, page, slot_bytes) < 1:
        raise InvalidCall(
            "A stream needs a request, and pool, page and slot_bytes at least 1; got "
            f"{len(stream)}, {pool}, {page} and {slot_bytes}."
        )
    most = max(request.tokens for request in stream)
    longest = most if longest is None else longest
    if longest < most:
        raise InvalidCall(
            f"A request has {most} tokens, and the longest may have {longest}.",
            "Allow longer ones, or send shorter ones.",
        )
    page = page if scheme == "paged" else 1
    pool = pool // page * page
    held = longest if scheme == "longest" else -(-most // page) * page
    if held > pool:
        raise InvalidCall(
            f"A request takes {held} slots, and the pool has {pool}.", "Give it a larger pool."
        )
    reserved = longest if scheme == "longest" else None
    memory = _Pages(pool, page) if scheme == "paged" else _Stretches(pool, reserved)
    server = _Server(memory=memory, pool=pool, coming=deque(stream))
    return Timeline(
        scheme=scheme,
        pool=pool,
        page=page,
        slot_bytes=slot_bytes,
        moments=tuple(server.run()),
        preemptions=server.preemptions,
    )


class _Memory(Protocol):
    """Who decides which slots a sequence gets."""

    def need(self, request: Request, tokens: int) -> int:
        """Slots it must get to come in with so many tokens."""
        ...

    def take(self, slots: int) -> tuple[range, ...] | None:
        """As many slots or more, or None where they are not to be had as this scheme wants them."""
        ...

    def give_back(self, stretches: Sequence[range]) -> None:
        """They are free again."""
        ...


class _Pages:
    def __init__(self, pool: int, page: int) -> None:
        self._page = page
        self._free = list(range(pool // page))[::-1]

    def need(self, request: Request, tokens: int) -> int:
        del request
        return -(-tokens // self._page) * self._page

    def take(self, slots: int) -> tuple[range, ...] | None:
        count = -(-slots // self._page)
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        return tuple(range(at * self._page, (at + 1) * self._page) for at in pages)

    def give_back(self, stretches: Sequence[range]) -> None:
        self._free += [stretch.start // self._page for stretch in reversed(stretches)]


class _Stretches:
    """First fit: the lowest hole that is long enough for the sequence's end, or for `reserved`."""

    def __init__(self, pool: int, reserved: int | None) -> None:
        self._pool = pool
        self._reserved = reserved
        self._taken: list[range] = []

    def need(self, request: Request, tokens: int) -> int:
        del tokens
        return request.tokens if self._reserved is None else self._reserved

    def take(self, slots: int) -> tuple[range, ...] | None:
        for hole in self._holes():
            if len(hole) >= slots:
                stretch = range(hole.start, hole.start + slots)
                self._taken = sorted([*self._taken, stretch], key=lambda one: one.start)
                return (stretch,)
        return None

    def give_back(self, stretches: Sequence[range]) -> None:
        self._taken = [one for one in self._taken if one not in stretches]

    def _holes(self) -> Iterator[range]:
        at = 0
        for stretch in self._taken:
            yield range(at, stretch.start)
            at = stretch.stop
        yield range(at, self._pool)


@dataclass(slots=True, eq=False)
class _Sequence:
    request: Request
    written: int
    stretches: tuple[range, ...]

    @property
    def held(self) -> int:
        return sum(map(len, self.stretches))


@dataclass(slots=True, kw_only=True)
class _Server:
    memory: _Memory
    pool: int
    coming: deque[Request]
    waiting: deque[tuple[Request, int]] = field(default_factory=deque)
    running: list[_Sequence] = field(default_factory=list)
    preemptions: int = 0

    def run(self) -> Iterator[Moment]:
        step = 0
        while self.coming or self.waiting or self.running:
            if step == _MOST_STEPS:
                raise InvalidCall(
                    f"The stream does not end within {_MOST_STEPS} steps.", "Send fewer requests."
                )
            while self.coming and self.coming[0].arrival <= step:
                request = self.coming.popleft()
                self.waiting.append((request, request.prompt))
            self._let_in()
            self._write()
            yield self._moment(step)
            self._let_go()
            step += 1

    def _let_in(self) -> None:
        while self.waiting:
            request, tokens = self.waiting[0]
            # With the token that it writes in this very step.
            stretches = self.memory.take(self.memory.need(request, tokens + 1))
            if stretches is None:
                return
            self.waiting.popleft()
            self.running.append(_Sequence(request, tokens, stretches))

    def _write(self) -> None:
        """One token a sequence, those that run longest first; the last ones may have to make room."""
        at = 0
        while at < len(self.running):
            sequence = self.running[at]
            if sequence.written == sequence.held and not self._grow(sequence):
                continue  # one was sent away: perhaps this one, else it is tried again
            sequence.written += 1
            at += 1

    def _grow(self, sequence: _Sequence) -> bool:
        more = self.memory.take(1)
        if more is not None:
            sequence.stretches += more
            return True
        last = self.running.pop()
        self.memory.give_back(last.stretches)
        self.waiting.appendleft((last.request, last.written))
        self.preemptions += 1
        return False

    def _let_go(self) -> None:
        for sequence in [one for one in self.running if one.written == one.request.tokens]:
            self.memory.give_back(sequence.stretches)
            self.running.remove(sequence)

    def _moment(self, step: int) -> Moment:
        placements = tuple(
            Placement(
                request=one.request.number,
                written=one.written,
                wanted=one.request.tokens,
                stretches=one.stretches,
            )
            for one in self.running
        )
        written = sum(one.written for one in placements)
        useful = sum(min(one.held, one.wanted) for one in placements)
        held = sum(one.held for one in placements)
        unusable = self._unusable(self.pool - held)
        return Moment(
            step=step,
            placements=placements,
            waiting=tuple(request.number for request, _ in self.waiting),
            written=written,
            reserved=useful - written,
            never=held - useful,
            unusable=unusable,
            free=self.pool - held - unusable,
        )

    def _unusable(self, left: int) -> int:
        """What is left, where it would be enough for the first that waits and yet is not."""
        if not self.waiting:
            return 0
        request, tokens = self.waiting[0]
        need = self.memory.need(request, tokens + 1)
        if need > left:
            return 0
        stretches = self.memory.take(need)
        if stretches is None:
            return left
        self.memory.give_back(stretches)
        return 0
