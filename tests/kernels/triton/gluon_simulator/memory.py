"""Shared memory, barriers and tensors as the copy engine sees them, for one program.

Blocks are NumPy arrays of float32, rounded where the kernel would round.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from triton.experimental.gluon import language as gl

from tests.kernels.triton.gluon_simulator.machine import Hazard, Machine, Partition

DTYPES: dict[Any, torch.dtype] = {
    gl.bfloat16: torch.bfloat16,
    gl.float16: torch.float16,
    gl.float32: torch.float32,
}


def rounded(block: np.ndarray, dtype: Any) -> np.ndarray:
    """The block with its numbers as this dtype has them."""
    return torch.from_numpy(np.ascontiguousarray(block)).to(DTYPES[dtype]).float().numpy()


class Place:
    """A part of shared memory that is written as a whole: who touched it last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._written: int | None = None
        self._by_warps = False
        self._reads: set[int] = set()

    def read(self, event: int, reader: Partition, *, by_engine: bool) -> None:
        """Whether what was written is there for whoever reads now."""
        if self._written is None:
            raise Hazard(f"{reader.name} reads {self.name}, to which nothing was written")
        if self._written not in reader.known:
            raise Hazard(f"{reader.name} reads {self.name} before it knows that it is written")
        if by_engine and self._by_warps and self._written not in reader.fenced:
            raise Hazard(f"{reader.name} lets an engine read {self.name} without a fence")
        self._reads.add(event)

    def write(self, event: int, writer: Partition, *, by_engine: bool) -> None:
        """Whether everybody is done with what was there before."""
        before = self._reads | ({self._written} - {None})
        if not before <= writer.known:
            raise Hazard(f"{writer.name} writes {self.name} before it knows that others are done")
        self._written, self._by_warps, self._reads = event, not by_engine, set()


class Shared:
    """A view of shared memory: NaN before it is written."""

    def __init__(self, values: np.ndarray, places: Sequence[Place], machine: Machine) -> None:
        self.values, self.places, self._machine = values, places, machine
        self.shape = values.shape

    @classmethod
    def allocated(cls, shape: Sequence[int], name: str, machine: Machine) -> "Shared":
        """Memory whose first dimension counts places."""
        places = [Place(f"{name}[{at}]") for at in range(shape[0])]
        return cls(np.full(shape, np.nan, np.float32), places, machine)

    @property
    def place(self) -> Place:
        """The one that the view lies in."""
        (only,) = self.places
        return only

    def index(self, at: int) -> "Shared":
        """The view of one place."""
        if not 0 <= at < len(self.places):
            raise Hazard(f"{self.places[0].name} has no place {at}")
        return Shared(self.values[at], [self.places[at]], self._machine)

    def reshape(self, shape: Sequence[int]) -> "Shared":
        """The same memory in another shape."""
        return Shared(self.values.reshape(shape), self.places, self._machine)

    def permute(self, order: Sequence[int]) -> "Shared":
        """The same memory with its dimensions in another order."""
        return Shared(self.values.transpose(order), self.places, self._machine)

    def store(self, block: np.ndarray) -> None:
        """Written by the warps themselves."""
        self._machine.step()
        event, mine = self._machine.event(), self._machine.current
        self.place.write(event, mine, by_engine=False)
        mine.known.add(event)
        self.values[...] = block


class Barrier:
    """An mbarrier: a phase ends with the last arrival it counts and the last byte it expects."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = 0
        self.known: set[int] = set()
        self._count: int | None = None
        self._missing = self._bytes = 0
        self._gathered: set[int] = set()

    def start(self, count: int) -> None:
        """Sets how many arrivals end a phase."""
        self._count = self._missing = count

    def arrive(self, known: set[int], count: int = 1) -> None:
        """Arrivals of somebody who knows of these events."""
        self._check()
        if count > self._missing:
            raise Hazard(f"{self.name} counts fewer arrivals than it gets in phase {self.phase}")
        self._missing -= count
        self._gathered |= known
        self._turn_over()

    def expect(self, known: set[int], number: int) -> None:
        """An arrival, and bytes that are still to come in this phase."""
        self._check()
        self._bytes += number
        self.arrive(known)

    def land(self, known: set[int], number: int) -> None:
        """Bytes that have come."""
        self._check()
        if number > self._bytes:
            raise Hazard(f"{self.name} gets bytes that it does not expect")
        self._bytes -= number
        self._gathered |= known
        self._turn_over()

    def passed(self, parity: int) -> bool:
        """Whether the phase of this parity is over, so far as one bit tells."""
        self._check()
        return self.phase & 1 != parity

    def _check(self) -> None:
        if self._count is None:
            raise Hazard(f"{self.name} is used before it is started")

    def _turn_over(self) -> None:
        if self._missing == 0 and self._bytes == 0:
            assert self._count is not None
            self.phase += 1
            self.known |= self._gathered
            self._missing, self._gathered = self._count, set()


class Barriers:
    """An allocation of barriers."""

    def __init__(self, number: int, name: str) -> None:
        self._all = [Barrier(f"{name}[{at}]") for at in range(number)]

    def index(self, at: int) -> Barrier:
        """One of them."""
        if not 0 <= at < len(self._all):
            raise Hazard(f"{self._all[0].name} has no neighbour {at}")
        return self._all[at]


class Descriptor:
    """A tensor in device memory and the block that is copied of it."""

    def __init__(self, host: Any) -> None:
        self._tensor = host.base.as_strided(host.shape, host.strides)
        self._block = tuple(host.block_shape)
        self.layout = host.layout
        self.dtype = next(each for each, of in DTYPES.items() if of == host.base.dtype)
        self.nbytes = int(np.prod(self._block)) * host.base.element_size()
        self.block_type = SimpleNamespace(nbytes=self.nbytes)

    def read(self, at: Sequence[int]) -> np.ndarray:
        """The block at these coordinates; 0 outside the tensor."""
        block = np.zeros(self._block, np.float32)
        there, here = self._overlap(at)
        block[here] = self._tensor[there].float().numpy()
        return block

    def write(self, at: Sequence[int], block: np.ndarray) -> None:
        """Writes what of the block lies inside the tensor."""
        there, here = self._overlap(at)
        self._tensor[there] = torch.from_numpy(block[here].copy()).to(self._tensor.dtype)

    def _overlap(self, at: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where block and tensor meet: in the tensor, and in the block."""
        there, here = [], []
        for first, wide, size in zip(at, self._block, self._tensor.shape, strict=True):
            start = min(max(first, 0), size)
            end = max(min(first + wide, size), start)
            there.append(slice(start, end))
            here.append(slice(start - first, end - first) if end > start else slice(0, 0))
        return tuple(there), tuple(here)


class Pointer:
    """Elements of a contiguous tensor in device memory."""

    def __init__(self, tensor: torch.Tensor, offset: Any = 0) -> None:
        self._tensor, self._offset = tensor, offset

    def __add__(self, offset: Any) -> "Pointer":
        return Pointer(self._tensor, self._offset + offset)

    def store(self, block: np.ndarray, mask: np.ndarray) -> None:
        """Writes where the mask says so; that must be inside the tensor."""
        places, numbers = self._offset[mask], block[mask]
        if places.size and not 0 <= places.min() <= places.max() < self._tensor.numel():
            raise Hazard("a store outside its tensor")
        self._tensor.view(-1)[torch.from_numpy(places)] = torch.from_numpy(numbers)
