"""A layer that was planted slow is found, on a clock that is known and on the real one."""

import pytest
import torch
from torch import nn

from attnscope.models.parts import Kind, Part
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


def part_of(name: str, module: nn.Module, kind: Kind = "layer", layer: int | None = 0) -> Part:
    return Part(name=name, kind=kind, layer=layer, module=module)


def test_every_part_takes_what_it_takes_and_a_layer_what_is_in_it() -> None:
    hands = Hands()
    attention, mlp = Taking(hands, 3), Taking(hands, 4)
    layer = Taking(hands, 1, attention, mlp)
    model = Taking(hands, 2, layer, layer)
    unused = Taking(hands, 100)
    parts = [
        part_of("whole", layer),
        part_of("attn", attention, "attention"),
        part_of("ffn", mlp, "mlp"),
        part_of("ffn 2", mlp, "mlp", 1),
        part_of("unused", unused),
    ]
    found = time_parts(model, parts[:3] + parts[4:], hands.clock, QUICK)
    assert [(part.name, part.median_s) for part in found.parts] == [
        ("whole", 16),
        ("attn", 6),
        ("ffn", 8),
    ]
    assert found.by_kind() == {"layer": 16, "attention": 6, "mlp": 8}
    assert [(part.kind, part.layer) for part in found.parts][1:] == [("attention", 0), ("mlp", 0)]
    twice = time_parts(model, parts[2:4], hands.clock, QUICK)
    assert twice.by_kind() == {"mlp": 16}
    assert [part.share for part in found.parts] == [16 / 18, 6 / 18, 8 / 18]
    assert found.watched.median_s == 18
    assert found.overhead.value == 1
    assert found.slowest("mlp").name == "ffn"
    assert not any(module._forward_hooks for module in model.modules())


def test_the_first_and_the_warm_up_are_in_no_figure() -> None:
    hands = Hands()
    part = Taking(hands, 1)
    seconds = iter([50.0, 60.0, 70.0, 80.0])

    def call() -> None:
        part.seconds = next(seconds, 1.0)
        part()

    assert time_parts(call, [part_of("part", part)], hands.clock, QUICK).parts[0].p90_s == 1


@pytest.mark.parametrize("planted", [0, 2, 5])
def test_a_planted_slow_layer_is_the_slowest_on_the_real_clock(planted: int) -> None:
    heavy = torch.randn(512, 512)

    class Slowed(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                torch.mm(heavy, heavy)
            return super().forward(input)

    layers = nn.Sequential(*((Slowed if at == planted else nn.Linear)(64, 64) for at in range(6)))
    parts = [part_of(str(at), layer, layer=at) for at, layer in enumerate(layers)]
    with torch.no_grad():
        found = time_parts(
            lambda: layers(torch.ones(8, 64)), parts, clock_of(torch.device("cpu")), QUICK
        )
    slowest = found.slowest("layer")
    assert (slowest.name, slowest.layer) == (str(planted), planted)
    assert slowest.share > 0.5
    assert len(found.parts) == 6
