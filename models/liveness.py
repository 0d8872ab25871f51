"""Which tensors are alive while a model runs on the meta device, as terms in batch and length.

The meta device computes shapes and no numbers, so a forward pass of any size takes no memory. It is
run once, with a batch and a length that are large primes: every allocation is then a whole number
times a power of each, and the powers can be read off its size. What was alive at the worst moments
is therefore known for every batch and length, not only for those that ran.
"""

import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST_OPERATIONS = 40_000
"""A pass of more is a loop over positions (a recurrence), and is run again at a shorter length."""


class TooLong(Exception):
    """A pass at this length takes more operations than are worth waiting for."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The batch and the length of a pass, chosen to be recognised in every size.

    Attributes:
        batch: A prime that divides no width of a model.
        length: A number that divides none either.
    """

    batch: int
    length: int


LONG = Marker(1009, 1_000_003)
_PADDED = 64
"""The most positions that a row is padded by and still recognised."""

SHORT = Marker(1009, 64 * 31)
"""For recurrences: a whole number of chunks, so that nothing is rounded up."""


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """elements · batch^batch_power · length^length_power, of so many bytes each.

    Attributes:
        elements: The whole number.
        batch_power: 0 or 1.
        length_power: 0, 1 or 2.
        itemsize: Bytes of one element.
        is_floating: Whether the elements are floating-point numbers.
    """

    elements: int
    batch_power: int
    length_power: int
    itemsize: int
    is_floating: bool

    @classmethod
    def of(cls, elements: int, dtype: torch.dtype, marker: Marker) -> "Size":
        """Reads the powers off a number of elements.

        Args:
            elements: Of a storage.
            dtype: Of its elements.
            marker: Of the pass. One position fewer or more counts as all.
        """
        rest, batch_power, length_power = elements, 0, 0
        if rest and rest % marker.batch == 0:
            rest, batch_power = rest // marker.batch, 1
        # The cache before a step has one position less, and scores beside a sink one more.
        near = (marker.length, marker.length - 1, marker.length + 1)
        while rest and length_power < 2 and (at := next((n for n in near if rest % n == 0), 0)):
            rest, length_power = rest // at, length_power + 1
        if marker is LONG and batch_power and not length_power:
            # Rows that were padded, or have a few positions more, count as those they stand for.
            longer = (marker.length + more for more in range(2, _PADDED + 1))
            padded = next((rows for rows in longer if rest % rows == 0), None)
            if padded is not None:
                rest, length_power = rest // padded, 1
        return cls(rest, batch_power, length_power, dtype.itemsize, dtype.is_floating_point)


@dataclass(slots=True)
class Allocation:
    """One storage: its size, and the module that was running when it came to be."""

    size: Size
    module: str


@dataclass(slots=True)
class Snapshot:
    """What was alive at one moment.

    Attributes:
        module: The module that was running.
        attention: The number of the attention call under way, or None.
        backward: Whether that is its backward pass.
        alive: Allocations by key.
        totals: Bytes by (batch power, length power).
    """

    module: str
    attention: int | None
    backward: bool
    alive: dict[int, Allocation]
    totals: dict[tuple[int, int], int]


class Liveness(TorchDispatchMode):
    """Watches allocations and keeps the moments at which most was alive.

    A moment is kept unless another of its kind holds at least as much at every batch and length.

    Attributes:
        module: The module that is running; set by whoever follows the model.
        by_layer: Whether moments are compared within a layer only: in a step, layers that look alike
            here differ by their windows.
        flops: FLOP of matrix products by (batch power, length power).
        snapshots: The moments that were kept, by kind.
        saved: The attention call whose saved tensors live as long as an allocation, by its key.

    Args:
        marker: Batch and length of the pass.
        apart: Storages that are not counted: parameters and buffers.
        flops: FLOP of an operation by its arguments and result, by operation.
    """

    def __init__(
        self,
        marker: Marker,
        apart: Iterable[Tensor],
        flops: dict[Any, Callable[..., int]] | None = None,
    ) -> None:
        super().__init__()
        self.marker = marker
        self.module = ""
        self.by_layer = False
        self.operations = 0
        self.flops: Counter[tuple[int, int]] = Counter()
        self.saved: dict[int, int] = {}
        self.snapshots: dict[object, list[Snapshot]] = {}
        self._formulas = flops or {}
        self._alive: dict[int, Allocation] = {}
        self._keys: dict[int, int] = {}
        self._watched: dict[int, weakref.ref] = {}
        self._fresh = itertools.count()
        self._totals: Counter[tuple[int, int]] = Counter()
        self._apart = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in apart}

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Runs the operation and notes what it allocated."""
        del types
        self.operations += 1
        if self.operations > MOST_OPERATIONS:
            raise TooLong
        if func is torch.ops.aten._local_scalar_dense.default:
            # A model asks for a number that the meta device does not have: whether a length
            # passes a limit, whether a mask hides nothing. At a great length both are so.
            return True
        result = func(*args, **(kwargs or {}))
        grown = False
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                grown |= self._watch(leaf)
        if grown:
            self.note(kind=layer_name(self.module) if self.by_layer else None)
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            count = formula(*args, **(kwargs or {}), out_val=result)
            size = Size.of(count, torch.uint8, self.marker)
            self.flops[size.batch_power, size.length_power] += size.elements
        return result

    def key_of(self, tensor: Tensor) -> int | None:
        """The key of a tensor's storage in the snapshots, or None when it is not counted."""
        return self._keys.get(id(tensor.untyped_storage()))

    def size_of(self, key: int) -> Size:
        """The size of an allocation that is alive."""
        return self._alive[key].size

    def adopt(self, tensor: Tensor) -> None:
        """Counts a tensor that was there before."""
        self._watch(tensor)

    def mark(self, tensor: Tensor, call: int) -> None:
        """Says that as long as this tensor lives, so does what an attention call saved."""
        self._watch(tensor)
        key = self.key_of(tensor)
        assert key is not None
        self.saved[key] = call

    def note(
        self, attention: int | None = None, kind: object = None, *, backward: bool = False
    ) -> None:
        """Keeps this moment, unless one of its kind is as large in every power.

        Args:
            attention: The number of the attention call under way.
            kind: Moments are compared within a kind: calls of one shape are one.
            backward: Whether that is the call's backward pass.
        """
        kept = self.snapshots.setdefault((kind, backward), [])
        now = self._totals
        if any(_covers(other.totals, now) for other in kept):
            return
        kept[:] = [other for other in kept if not _covers(now, other.totals)]
        kept.append(Snapshot(self.module, attention, backward, dict(self._alive), dict(now)))

    def _watch(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        identity = id(storage)
        if identity in self._keys or identity in self._apart:
            return False
        size = Size.of(storage.nbytes() // tensor.itemsize, tensor.dtype, self.marker)
        key = next(self._fresh)
        self._keys[identity] = key
        self._alive[key] = Allocation(size, self.module)
        power = (size.batch_power, size.length_power)
        self._totals[power] += size.elements * size.itemsize
        self._watched[identity] = weakref.ref(storage, lambda _: self._forget(identity))
        return True

    def _forget(self, identity: int) -> None:
        size = self._alive.pop(self._keys.pop(identity)).size
        del self._watched[identity]
        self._totals[size.batch_power, size.length_power] -= size.elements * size.itemsize


def _covers(larger: dict[tuple[int, int], int], smaller: dict[tuple[int, int], int]) -> bool:
    return all(larger.get(power, 0) >= count for power, count in smaller.items())


def layer_name(module: str) -> str | None:
    """Up to the first number: a module of a list of layers."""
    parts = module.split(".")
    at = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    return None if at is None else ".".join(parts[: at + 1])
