"""Runs a host function whose kernels are Gluon's, from their own source, on the CPU.

A function is taken as it is written, with other globals: for Gluon's language the simulator's, for
other kernels' functions these, made the same way.
"""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import triton.language as tl
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma
from triton.runtime import JITFunction
from triton.runtime.interpreter import InterpretedFunction

from attnscope.kernels.triton import gluon_names
from tests.kernels.triton.gluon_simulator.language import Language, argument
from tests.kernels.triton.gluon_simulator.machine import Machine

KERNELS = (JITFunction, InterpretedFunction)


def simulated(launch: Callable[..., Any], seed: int) -> Callable[..., Any]:
    """The host function, launching kernels in the simulator.

    Args:
        launch: Launches kernels as `kernel[grid](...)`; they are globals of its module.
        seed: Of the order in which everything happens.
    """
    assert isinstance(launch, FunctionType)

    def exchanged(value: Any) -> Any:
        return (
            _Kernel(value, seed) if isinstance(value, JITFunction) and value.is_gluon() else value
        )

    return _with_globals(launch, exchanged)


class _Kernel:
    """A kernel, launched one program after the other."""

    def __init__(self, kernel: JITFunction[Any], seed: int) -> None:
        self._kernel, self._seed = kernel, seed

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def run(*arguments: Any, **named: Any) -> None:
            given = [argument(each) for each in arguments]
            for program in range(grid[0]):
                machine = Machine(1000 * self._seed + program)
                language = Language(machine, program, grid[0])
                _Functions(language).of(self._kernel)(*given, **named)

        return run


class _Functions:
    """A language's functions of kernels, each made once."""

    def __init__(self, language: Language) -> None:
        self._made: dict[int, Callable[..., Any]] = {}
        stands_for: list[tuple[Any, Any]] = [
            (gl, language),
            (tl, language),
            (hopper, language.hopper),
            (mbarrier, language.mbarrier),
            (tma, language.tma),
            (gluon_names.copy_in, language.copy_in),
            (gluon_names.copy_out, language.copy_out),
        ]
        self._stands_for = {id(real): mine for real, mine in stands_for}

    def of(self, kernel: Any) -> Callable[..., Any]:
        """The function in this language."""
        if id(kernel) not in self._made:
            self._made[id(kernel)] = _with_globals(kernel.fn, self._exchanged)
        return self._made[id(kernel)]

    def _exchanged(self, value: Any) -> Any:
        if isinstance(value, KERNELS):
            return self.of(value)
        if isinstance(value, tl.constexpr):
            return value.value
        return self._stands_for.get(id(value), value)


def _with_globals(function: FunctionType, exchanged: Callable[[Any], Any]) -> Callable[..., Any]:
    known = function.__globals__
    used = {name: exchanged(known[name]) for name in _names(function.__code__) if name in known}
    made = FunctionType(
        function.__code__,
        {**used, "__builtins__": known["__builtins__"]},
        function.__name__,
        tuple(map(exchanged, function.__defaults__ or ())),
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _names(code: CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inner))
