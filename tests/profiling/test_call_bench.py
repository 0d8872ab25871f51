import pytest
import torch

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import backend
from attnscope.profiling.call_bench import Trial, bench, random_inputs
from attnscope.profiling.latency import Effort

CPU = torch.device("cpu")
QUICK = Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)


def call(length: int = 64, *, rule: str = "causal", kv_heads: int = 4) -> AttentionCall:
    return AttentionCall(
        batch=1,
        query_heads=4,
        kv_heads=kv_heads,
        query_length=length,
        key_length=length,
        head_dim=16,
        value_dim=16,
        dtype="float32",
        scale=0.25,
        pattern=pattern(rule),
    )


def test_calls_are_timed_in_turns_and_what_refuses_is_a_result() -> None:
    heard: list[str] = []
    found = bench(
        {
            "dense": Trial.of(backend("eager"), call(), CPU),
            "shared": Trial.of(backend("tiled"), call(kv_heads=2), CPU),
            "refused": Trial.of(backend("triton"), call(), CPU),
        },
        CPU,
        effort=QUICK,
        on_run=lambda name, seconds: heard.append(name),
    )
    assert list(found) == ["dense", "shared", "refused"]
    assert sorted(heard[:2]) == sorted(heard[2:4]) == ["dense", "shared"]
    for name in ("dense", "shared"):
        timing = found[name].timing
        assert timing is not None
        assert timing.count == 2
        assert found[name].failure == ""
    assert found["refused"].timing is None
    assert "Triton flash" in found["refused"].failure
    assert found["refused"].peak.value is None


def test_the_memory_is_that_of_the_call_alone() -> None:
    length = 256
    found = bench({"dense": Trial.of(backend("eager"), call(length), CPU)}, CPU, effort=QUICK)
    held = found["dense"].peak.value
    one_matrix = 4 * length * length * 4
    assert held is not None
    assert 2 * one_matrix <= held < 4 * one_matrix


def test_the_numbers_are_the_same_for_the_same_shape() -> None:
    ones, others = (random_inputs(call(), CPU, seed) for seed in (0, 0))
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
    assert [tuple(one.shape) for one in random_inputs(call(kv_heads=2), CPU, 0)] == [
        (1, 4, 64, 16),
        (1, 2, 64, 16),
        (1, 2, 64, 16),
    ]


def test_whoever_listens_can_end_it() -> None:
    def stop(name: str, seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench({"dense": Trial.of(backend("eager"), call(), CPU)}, CPU, effort=QUICK, on_run=stop)
