"""A record with every field filled, as a real run would leave it."""

from dataclasses import replace

from attnscope.profiling.attention_path import Executed
from attnscope.profiling.energy import Energy
from attnscope.profiling.latency import Ratio, Timing
from attnscope.profiling.measured import Measured
from attnscope.profiling.memory import MemoryPeak
from attnscope.profiling.memory_timeline import KINDS, MemoryTimeline
from attnscope.profiling.part_times import PartTime, PartTimes
from attnscope.profiling.record import (
    Cell,
    Exactness,
    Failure,
    Machine,
    ModelUsed,
    Prediction,
    RunRecord,
    Telemetry,
)
from attnscope.profiling.sources import Sample
from attnscope.profiling.trace import Kernel

MODEL = ModelUsed(
    source="demo",
    revision=None,
    title="Demo “model”\n",
    architecture="qwen3",
    config_hash="c0ffee",
    parameters=123,
    weight_bytes=492,
)
CELL = Cell(backend="tiled", phase="prefill", batch=2, length=128, dtype="float32")
TIMING = Timing(
    samples_s=(0.1 + 0.2, 1 / 3, *[0.3] * 18),
    first_s=2.5e-300,
    queue_s=None,
    clock="host clock",
    cache="hot",
    warmup_runs=3,
    shortened=False,
)
PART = PartTime(name="a", kind="layer", layer=0, median_s=0.1, p10_s=0.05, p90_s=0.2, share=0.5)
RECORD = RunRecord(
    created="2026-11-27T10:00:00.000001+00:00",
    model=MODEL,
    cell=CELL,
    parameters=(("block", "128"),),
    seed=0,
    machine=Machine(
        device="cpu",
        name="two cores",
        memory_bytes=2**34,
        threads=1,
        driver="no GPU",
        versions=(("torch", "2.13.0"), ("triton", "not installed")),
    ),
    predicted_bytes=2**53 + 1,
    timing=TIMING,
    peak=MemoryPeak(
        allocated=Measured(100),
        transient=Measured(40),
        reserved=Measured.missing("no cache on a CPU"),
        process=Measured(1000),
        device=Measured(5000),
    ),
    energy=Energy(joules=Measured.missing("no meter"), seconds=2.0),
    parts=PartTimes(
        parts=(PART,),
        overhead=Ratio(value=1.01, unsettled=""),
        watched=TIMING,
    ),
    timeline=MemoryTimeline(kinds=KINDS, seconds=(0.0, 0.1), nbytes=((1,) * 5, (2,) * 5)),
    kernels=(Kernel(name="aten::mm", seconds=0.1, count=3, share=1.0),),
    attention=Executed(asked="tiled", ran=(("tiled", 4),), kernels=("aten::bmm",)),
    exactness=Exactness(relative=Measured(1e-7), largest=Measured(1e-6), layer=2, rows=64),
    telemetry=Telemetry(
        samples=(Sample(at_s=1.5, throttled=()), Sample(at_s=1.6, load=0.1)),
        missing=(("power_w", "no meter"),),
        load_before=0.7,
    ),
    failure=None,
    notes=("nothing was left out",),
)
FORETOLD = replace(
    RECORD,
    prediction=Prediction(
        flops=10**9, nbytes=10**8, flops_per_second=1e10, bytes_per_second=1e8, origin="measured"
    ),
)
"""As RECORD, its time said before: 1 s at least, by its bytes."""

FAILED = replace(
    RECORD,
    timing=None,
    peak=None,
    energy=None,
    parts=None,
    timeline=None,
    kernels=(),
    attention=None,
    exactness=None,
    failure=Failure(outcome="out_of_memory", reason="needs 7 GiB", remedy="less"),
)
