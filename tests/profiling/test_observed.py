"""Events of the profiler against operators whose allocations are known."""

import pytest
import torch
from torch.profiler import record_function

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.observed import allocations, observe, scope_times

CPU = torch.device("cpu")


def test_every_byte_taken_and_given_back_in_order() -> None:
    def call() -> None:
        first = torch.empty(1000, 1000)
        second = torch.empty(10)
        del first
        torch.ones(500, 1000, dtype=torch.float64)
        del second

    steps = allocations(observe(call, CPU, memory=True), CPU)
    assert [step.nbytes for step in steps] == [
        4_000_000,
        40,
        -4_000_000,
        4_000_000,
        -4_000_000,
        -40,
    ]
    assert steps[0].address == steps[2].address
    assert "aten::ones" in steps[3].scopes


def test_what_an_earlier_run_took_is_not_given_back_in_this_one() -> None:
    held: list[torch.Tensor] = []
    observe(lambda: held.append(torch.empty(1000)), CPU, memory=True)

    def call() -> None:
        held.clear()
        torch.empty(10)

    steps = allocations(observe(call, CPU, memory=True), CPU)
    assert [step.nbytes for step in steps] == [40, -40]


def test_scopes_are_found_by_their_name() -> None:
    def call() -> None:
        for _ in range(2):
            with record_function("a scope of mine"):
                torch.empty(8)

    profiler = observe(call, CPU, memory=True)
    scopes = scope_times(profiler, "a scope of mine")
    assert len(scopes) == 2
    inside = [each for each in allocations(profiler, CPU) if each.nbytes > 0]
    for (start, end), step in zip(scopes, inside, strict=True):
        assert start <= step.at_ns <= end


def test_two_profilers_at_once_are_refused_in_words() -> None:
    with pytest.raises(InvalidCall, match="running already"):
        observe(lambda: observe(lambda: None, CPU), CPU)
