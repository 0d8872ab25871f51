"""Which configuration of the flash kernel is fastest here: data for `configurations.py`.

    python -m benchmarks.gpu --only tune

Every line of `<date>_<device>_gpu_tune.jsonl` holds one call, the configuration that ships for it,
the fastest that is right, and what each one tried took; the log prints them in the form of the
tables of `kernels/triton/configurations.py`. Changing those means running scripts/compile-check.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import product

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.triton.configurations import (
    FlashConfig,
    block_width,
    capability_of,
    forward_config,
)
from attnscope.kernels.triton.flash_forward import flash_forward
from attnscope.kernels.triton.flash_rule import flash_rule
from benchmarks.gpu import forward
from benchmarks.gpu.bench import Bench, Record, contest, planned
from benchmarks.gpu.contenders import OURS, Contender, judged
from benchmarks.gpu.problem import problem, truth
from tests.inputs import Inputs

SHARED_BYTES = 227 * 1024
"""Of a block on Hopper; a configuration that wants more does not start, and is not tried."""


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: the forward goal's calls of 8k tokens, those with a window, and heads 256 wide.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    length = 16 if toy else 8192
    grid = [call for call in forward.calls(toy=toy) if call.query_length == length]
    window = pattern("sliding_window", window=8 if toy else 1024)
    windows = [replace(call, pattern=window) for call in grid if call.pattern.key == "causal"]
    wide = {"head_dim": 256, "value_dim": 256, "query_heads": 8, "kv_heads": 8, "scale": 1 / 16}
    widest = [replace(call, **wide) for call in grid if call.head_dim == 128]
    return (*grid, *windows, *widest)


def candidates(width: int, itemsize: int, *, toy: bool = False) -> tuple[FlashConfig, ...]:
    """What is tried for heads of a width: tiles that fit the shared memory, in 2 to 4 stages.

    Args:
        width: Of a tile, `block_width` of the heads.
        itemsize: Bytes of a number.
        toy: Two small ones.
    """
    shapes = ((64, 4), (128, 8)) if not toy else ((16, 4),)
    stages = (2, 3, 4) if not toy else (1, 2)
    keys = (32, 64, 128) if not toy else (16,)
    return tuple(
        FlashConfig(
            block_queries=queries, block_keys=block_keys, num_warps=warps, num_stages=flying
        )
        for (queries, warps), block_keys, flying in product(shapes, keys, stages)
        if (queries + 2 * flying * block_keys) * width * itemsize <= SHARED_BYTES
    )


def tune(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, answered with every candidate and with what ships."""
    return planned(bench, calls(toy=bench.toy), partial(_tuned, bench))


def as_row(config: FlashConfig) -> str:
    """A configuration as the tables write it: queries, keys, warps, stages."""
    return str(tuple(asdict(config).values()))


def _tuned(bench: Bench, call: AttentionCall, deadline: float) -> Record:
    asked = problem(call, bench.device)
    shipped = _shipped(bench, call)
    width = block_width(max(call.head_dim, call.value_dim))
    tried = candidates(width, call.torch_dtype.itemsize, toy=bench.toy)
    configs = {f"{OURS} {as_row(config)}": config for config in (*tried, shipped)}
    contenders = [_with(config, name, asked) for name, config in configs.items()]
    judge = partial(judged, asked=asked, true=truth(asked))
    record = contest(bench, call, contenders, judge, deadline=deadline)
    medians = {
        name: statistics.median(found["samples_ms"])
        for name, found in record["backends"].items()
        if "samples_ms" in found
    }
    record["shipped"] = asdict(shipped)
    if medians:
        best = min(medians, key=medians.__getitem__)
        record["best"] = asdict(configs[best])
        record["table"] = f"{width}: {as_row(configs[best])}"
        ships = medians.get(f"{OURS} {as_row(shipped)}")
        record["gain"] = None if ships is None else ships / medians[best]
    return record


def _with(config: FlashConfig, name: str, asked: Inputs) -> Contender:
    run = partial(flash_forward, *asked.tensors, asked.call, **asked.extras, config=config)
    return Contender(name=name, run=run)


def _shipped(bench: Bench, call: AttentionCall) -> FlashConfig:
    rule = flash_rule(call)
    assert rule is not None, "the plan holds only what the kernel takes"
    return forward_config(
        max(call.head_dim, call.value_dim),
        call.torch_dtype,
        capability_of(bench.device),
        bounded_before=rule.bounded_before,
    )
