"""What kernels call of Gluon, done by one program's machine; what is missing here fails by its name."""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from triton.experimental.gluon import language as gl

from tests.kernels.triton.gluon_simulator.machine import Hazard, Machine, Product
from tests.kernels.triton.gluon_simulator.memory import (
    Barrier,
    Barriers,
    Descriptor,
    Pointer,
    Shared,
    rounded,
)


class InFlight:
    """A product's result before the product was waited for: no use can be made of it."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise Hazard("a product is used before it was waited for")

    def __getattr__(self, name: str) -> Any:
        raise Hazard(f"a product is asked for its {name} before it was waited for")


class Language:
    """The names of `gl` and `tl` that kernels use, and as attributes the modules of Hopper's."""

    def __init__(self, machine: Machine, program: int, programs: int) -> None:
        self._machine = machine
        self._allocated = 0
        self.program_id = lambda axis: program
        self.num_programs = lambda axis: programs
        self.mbarrier = SimpleNamespace(
            MBarrierLayout=lambda: Barrier,
            init=lambda barrier, count: barrier.start(count),
            wait=self._wait,
            arrive=self._arrive,
            expect=self._expect,
        )
        self.tma = SimpleNamespace(store_wait=self._store_wait)
        self.hopper = SimpleNamespace(
            fence_async_shared=self._fence,
            warpgroup_mma=self._multiply,
            warpgroup_mma_wait=self._wait_for_products,
        )

    # Layouts say where numbers lie, not what they are.
    NVMMADistributedLayout = SliceLayout = DotOperandLayout = staticmethod(lambda *_: None)
    float32, int64 = gl.float32, gl.int64
    static_range = range

    exp2, log2 = staticmethod(np.exp2), staticmethod(np.log2)
    where = staticmethod(np.where)
    cdiv = staticmethod(lambda a, b: -(-a // b))
    sum = staticmethod(lambda block, axis: np.sum(block, axis))
    max = staticmethod(lambda block, axis: np.max(block, axis))
    arange = staticmethod(lambda start, end, layout: np.arange(start, end))
    zeros = staticmethod(lambda shape, dtype, layout: np.zeros(shape, np.float32))
    full = staticmethod(lambda shape, value, dtype, layout: np.full(shape, value, np.float32))
    convert_layout = staticmethod(lambda block, layout: block)
    store = staticmethod(lambda pointer, block, mask: pointer.store(block, mask))

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        """Of blocks or of numbers."""
        return np.maximum(a, b) if isinstance(a, np.ndarray) else max(a, b)

    @staticmethod
    def minimum(a: Any, b: Any) -> Any:
        """The same."""
        return np.minimum(a, b) if isinstance(a, np.ndarray) else min(a, b)

    @staticmethod
    def cast(value: Any, dtype: Any) -> Any:
        """Blocks are rounded; integers have no end here."""
        if isinstance(value, InFlight):
            raise Hazard("a product is cast before it was waited for")
        return rounded(value, dtype) if isinstance(value, np.ndarray) else value

    def allocate_shared_memory(self, dtype: Any, shape: Sequence[int], layout: Any) -> Any:
        """Memory full of NaN; with the layout of barriers, barriers."""
        self._allocated += 1
        if layout is Barrier:
            return Barriers(shape[0], f"barriers {self._allocated}")
        return Shared.allocated(shape, f"memory {self._allocated}", self._machine)

    def warp_specialize(
        self,
        works: Sequence[tuple[Callable[..., None], tuple[Any, ...]]],
        warps: Sequence[int],
        registers: Sequence[int],
    ) -> None:
        """Each function in a partition of its own."""
        assert len(warps) == len(registers) == len(works) - 1
        named = [
            (f"{function.__name__} {at}", partial(function, *arguments))
            for at, (function, arguments) in enumerate(works)
        ]
        self._machine.specialize(named)

    def copy_in(self, tensor: Descriptor, at: Sequence[int], barrier: Barrier, to: Shared) -> None:
        """Begins now, writes at any time, ends at any time later."""
        machine, mine = self._machine, self._machine.current
        machine.step()
        event = machine.event()
        to.place.write(event, mine, by_engine=True)
        to.values[...] = np.nan
        known = {*mine.known, event}

        def arrive() -> None:
            to.values[...] = tensor.read(at)
            barrier.land(known, tensor.nbytes)

        machine.copies.append(arrive)

    def copy_out(self, tensor: Descriptor, at: Sequence[int], source: Shared) -> None:
        """Reads at any time before it is waited for."""
        machine, mine = self._machine, self._machine.current
        machine.step()
        event = machine.event()
        source.place.read(event, mine, by_engine=True)
        mine.leaving.append(event)

        def leave() -> None:
            tensor.write(at, source.values)
            mine.left.add(event)

        machine.copies.append(leave)

    def _store_wait(self, pendings: int) -> None:
        mine = self._machine.current
        ended = set(mine.leaving[: max(len(mine.leaving) - pendings, 0)])
        self._machine.step(lambda: ended <= mine.left, "its copies to device memory")
        mine.leaving = mine.leaving[len(ended) :]
        mine.known |= ended

    def _fence(self) -> None:
        mine = self._machine.current
        mine.fenced |= mine.known

    def _wait(self, barrier: Barrier, parity: int) -> None:
        mine = self._machine.current
        words = f"{barrier.name} to end a phase of parity {parity}"
        self._machine.step(lambda: barrier.passed(parity), words)
        mine.known |= barrier.known

    def _arrive(self, barrier: Barrier, count: int) -> None:
        self._machine.step()
        barrier.arrive(self._machine.current.known, count)

    def _expect(self, barrier: Barrier, number: int) -> None:
        self._machine.step()
        barrier.expect(self._machine.current.known, number)

    def _multiply(
        self, a: Any, b: Shared, acc: Any, use_acc: bool = True, is_async: bool = False
    ) -> InFlight:
        """Reads shared operands at any time before it is waited for."""
        assert is_async
        machine, mine = self._machine, self._machine.current
        machine.step()
        if isinstance(a, InFlight) or isinstance(acc, InFlight):
            raise Hazard(f"{mine.name} multiplies what it did not wait for")
        event = machine.event()
        for operand in (a, b):
            if isinstance(operand, Shared):
                operand.place.read(event, mine, by_engine=True)

        def compute() -> np.ndarray:
            left = a.values if isinstance(a, Shared) else a
            made = left @ b.values
            return made + acc if use_acc else made

        product = Product(event=event, compute=compute)
        mine.products.append(product)
        mine.computing.append(product)
        return InFlight(product)

    def _wait_for_products(self, num_outstanding: int, deps: Sequence[Any]) -> Any:
        """What is left outstanding stays in flight, done or not."""
        mine = self._machine.current
        ended = mine.products[: max(len(mine.products) - num_outstanding, 0)]
        words = f"its products but {num_outstanding}"
        self._machine.step(lambda: not any(each in mine.computing for each in ended), words)
        mine.products = mine.products[len(ended) :]
        mine.known |= {each.event for each in ended}
        given = [
            each.product.result
            if isinstance(each, InFlight) and each.product not in mine.products
            else each
            for each in deps
        ]
        return given[0] if len(given) == 1 else tuple(given)


def argument(value: Any) -> Any:
    """A kernel's argument as the language has it."""
    if hasattr(value, "block_shape"):
        return Descriptor(value)
    return Pointer(value) if hasattr(value, "data_ptr") else value
