"""A layer that was planted slow is found, on a clock that is known and on the real one."""

import pytest
import torch
from torch import nn

from attnscope.profiling.latency import Effort, clock_of
from attnscope.profiling.part_times import time_parts
from tests.profiling.clocks import Hands

QUICK = Effort(runs=5, seconds=0, warmup_runs=1, warmup_seconds=0)


class Taking(nn.Module):
    """A module that takes a known time, and holds others."""

    def __init__(self, hands: Hands, seconds: float, *inner: nn.Module) -> None:
        super().__init__()
        self.hands, self.seconds, self.inner = hands, seconds, nn.ModuleList(inner)

    def forward(self) -> None:
        self.hands.pass_by(self.seconds)
        for each in self.inner:
            each()


def test_every_part_takes_what_it_takes_and_a_layer_what_is_in_it() -> None:
    hands = Hands()
    attention, mlp = Taking(hands, 3), Taking(hands, 4)
    layer = Taking(hands, 1, attention, mlp)
    model = Taking(hands, 2, layer, layer)
    unused = Taking(hands, 100)
    modules = {"layer": layer, "attention": attention, "mlp": mlp, "unused": unused}
    found = time_parts(model, modules, hands.clock, QUICK)
    assert [(part.name, part.median_s) for part in found.parts] == [
        ("layer", 16),
        ("attention", 6),
        ("mlp", 8),
    ]
    assert [part.share for part in found.parts] == [16 / 18, 6 / 18, 8 / 18]
    assert found.watched.median_s == 18
    assert found.overhead.value == 1
    assert found.slowest({"attention", "mlp"}).name == "mlp"
    assert not any(module._forward_hooks for module in model.modules())


def test_the_first_and_the_warm_up_are_in_no_figure() -> None:
    hands = Hands()
    part = Taking(hands, 1)
    seconds = iter([50.0, 60.0, 70.0, 80.0])

    def call() -> None:
        part.seconds = next(seconds, 1.0)
        part()

    assert time_parts(call, {"part": part}, hands.clock, QUICK).parts[0].p90_s == 1


@pytest.mark.parametrize("planted", [0, 2, 5])
def test_a_planted_slow_layer_is_the_slowest_on_the_real_clock(planted: int) -> None:
    heavy = torch.randn(512, 512)

    class Slowed(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                torch.mm(heavy, heavy)
            return super().forward(input)

    layers = nn.Sequential(*((Slowed if at == planted else nn.Linear)(64, 64) for at in range(6)))
    modules = {str(at): layer for at, layer in enumerate(layers)}
    with torch.no_grad():
        found = time_parts(
            lambda: layers(torch.ones(8, 64)), modules, clock_of(torch.device("cpu")), QUICK
        )
    assert found.slowest().name == str(planted)
    assert found.slowest().share > 0.5
    assert len(found.parts) == 6
