"""One program's partitions and engines, which take steps in an order that a seed draws.

A partition is a thread that runs alone until its next step; an engine is what copies or multiplies
while partitions go on, and finishes at a moment that is drawn as well. Whatever one does to shared
memory is an event, and everyone knows the events that happened before: its own, those of whom it
waited for, and what these knew. So what is wrong in some order is found in most orders.
"""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

PACES = (0.02, 0.3, 1.0, 4.0)
"""Some are slow and some quick, so that what seldom meets does."""


class Hazard(AssertionError):
    """What a GPU need not get right: a race, a use before its time, a wait without end."""


class _Stopped(BaseException):
    """Ends the threads of a program that failed."""


@dataclass(eq=False, kw_only=True)
class Product:
    """A product of matrices under way: `result` is set when the engine has done it.

    Attributes:
        event: Its reading of shared memory.
        compute: Reads the operands and gives the result.
    """

    event: int
    compute: Callable[[], object]
    result: object = None


@dataclass(eq=False)
class Partition:
    """Warps that run one function.

    Attributes:
        name: For people.
        known: Events that happened before its next.
        fenced: Those of them that the copy engine sees too.
        products: Issued and not waited for, the oldest first.
        computing: Those of them that are not done yet.
        leaving: Its copies to device memory that were not waited for, by event, the oldest first.
        left: Those of them that have read what they copy.
        awaits: What it waits for, and in words; None when it can go on.
    """

    name: str
    known: set[int] = field(default_factory=set)
    fenced: set[int] = field(default_factory=set)
    products: list[Product] = field(default_factory=list)
    computing: list[Product] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    awaits: tuple[Callable[[], bool], str] | None = None
    done: bool = False
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class Machine:
    """A multiprocessor that runs one program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.current = Partition("the start")
        self.copies: list[Callable[[], None]] = []
        self._partitions: list[Partition] = []
        self._back = threading.Semaphore(0)
        self._events = 0
        self._failure: BaseException | None = None
        self._paces: dict[str, float] = {}

    def event(self) -> int:
        """A new one, known to nobody."""
        self._events += 1
        return self._events

    def step(self, until: Callable[[], bool] = lambda: True, words: str = "") -> None:
        """Lets others go first, and goes on when `until` holds."""
        mine = self.current
        if not self._partitions:
            assert until(), "what is waited for before partitions begin is not simulated"
            return
        mine.awaits = (until, words)
        self._back.release()
        mine.go.acquire()
        if self._failure is not None:
            raise _Stopped

    def specialize(self, works: Sequence[tuple[str, Callable[[], None]]]) -> None:
        """Runs partitions until all are done; each begins with what is known here."""
        start = self.current
        self._partitions = [
            Partition(name, set(start.known), set(start.fenced)) for name, _ in works
        ]
        threads = [
            threading.Thread(target=self._run, args=(mine, work), daemon=True)
            for mine, (_, work) in zip(self._partitions, works, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while self._failure is None and not all(each.done for each in self._partitions):
                self._take_a_step()
        except Hazard as hazard:
            self._failure = hazard
        for mine in self._partitions:
            mine.go.release()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        for mine in self._partitions:
            if mine.products or mine.leaving:
                raise Hazard(f"{mine.name} ends before its products and copies do")
            start.known |= mine.known
        if self.copies:
            raise Hazard("the program ends before all copies have come")
        self._partitions, self.current = [], start

    def _run(self, mine: Partition, work: Callable[[], None]) -> None:
        mine.go.acquire()
        try:
            if self._failure is None:
                work()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - told in the thread that runs the program
            self._failure = self._failure or error
        mine.done = True
        self._back.release()

    def _take_a_step(self) -> None:
        ready = [
            mine
            for mine in self._partitions
            if not mine.done and (mine.awaits is None or mine.awaits[0]())
        ]
        choices: list[tuple[str, Callable[[], None]]] = [
            *((mine.name, lambda mine=mine: self._resume(mine)) for mine in ready),
            *self._engines(),
        ]
        if not choices:
            raise Hazard("nobody can go on: " + self._waits())
        paces = [self._paces.setdefault(name, self.random.choice(PACES)) for name, _ in choices]
        self.random.choices([act for _, act in choices], paces)[0]()

    def _engines(self) -> list[tuple[str, Callable[[], None]]]:
        """What can finish now: any copy, and of each partition's products the oldest."""
        copies = [("copies", lambda at=at: self.copies.pop(at)()) for at in range(len(self.copies))]
        products = [
            (f"products of {mine.name}", lambda mine=mine: _compute(mine.computing.pop(0)))
            for mine in self._partitions
            if mine.computing
        ]
        return copies + products

    def _resume(self, mine: Partition) -> None:
        self.current = mine
        mine.awaits = None
        mine.go.release()
        self._back.acquire()

    def _waits(self) -> str:
        return "; ".join(
            f"{mine.name} waits for {mine.awaits[1]}"
            for mine in self._partitions
            if not mine.done and mine.awaits is not None
        )


def _compute(product: Product) -> None:
    product.result = product.compute()
