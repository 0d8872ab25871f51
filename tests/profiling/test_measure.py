"""Cells of the demo model, of which shapes give every byte, and faults that were planted in it."""

import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.call import AttentionOutput
from attnscope.kernels.errors import InvalidCall, JobCancelled, UnknownBackend
from attnscope.models.loading import LoadedModel, load
from attnscope.models.parts import parts
from attnscope.models.swapping import swapped
from attnscope.profiling.asked import FILLED_BY, Instruments, key_of, model_used, unmeasured
from attnscope.profiling.exactness import FLOAT32_ERROR
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
from attnscope.profiling.measure import Watcher, measure
from attnscope.profiling.record import Cell, Failure, Phase, RunRecord
from attnscope.profiling.sources import Sample

LAYERS, HEADS, KV_HEADS, DIM, LENGTH, BATCH = 4, 8, 2, 64, 48, 2
CACHE = LAYERS * 2 * BATCH * KV_HEADS * LENGTH * DIM * 4
PREFILL = Cell(backend="eager", phase="prefill", batch=BATCH, length=LENGTH, dtype="float32")
DECODE = replace(PREFILL, phase="decode")
QUICK = Effort(runs=3, seconds=0, warmup_runs=1, warmup_seconds=0)
ALL = Instruments(effort=QUICK, sampler_hz=None)
BARE = replace(ALL, judge=False, parts=False, timeline=False)


def at_peak(record: RunRecord) -> dict[str, int]:
    timeline = record.timeline
    assert timeline is not None
    return dict(zip(timeline.kinds, timeline.nbytes[timeline.peak], strict=True))


def at_end(record: RunRecord) -> dict[str, int]:
    timeline = record.timeline
    assert timeline is not None
    return dict(zip(timeline.kinds, timeline.nbytes[-1], strict=True))


def most(record: RunRecord, kind: str) -> int:
    timeline = record.timeline
    assert timeline is not None
    return max(row[timeline.kinds.index(kind)] for row in timeline.nbytes)


def test_a_prefill_measured_by_every_instrument(demo: LoadedModel) -> None:
    steps: list[str] = []
    record = measure(demo, PREFILL, instruments=ALL, predicted_bytes=7, report=steps.append)
    assert record.failure is None
    assert steps == ["latency", "exactness", "memory", "modules", "kernels", "memory by kind"]
    assert record.timing is not None
    assert record.timing.count == 3
    assert record.tokens_per_s == pytest.approx(BATCH * LENGTH / record.timing.median_s)
    peak = record.peak
    assert peak is not None
    found = at_peak(record)
    assert peak.allocated.value == sum(found.values())
    assert peak.transient.value == sum(found.values()) - demo.nbytes
    assert found["weights"] == demo.nbytes
    # Scores and their softmax, of all heads of one layer.
    assert most(record, "scores") == 2 * BATCH * HEADS * LENGTH**2 * 4
    assert at_end(record)["kv_cache"] == CACHE
    assert record.attention is not None
    assert record.attention.ran == (("dense", LAYERS),)
    assert record.exactness is not None
    assert 0 < (record.exactness.relative.value or 0) < FLOAT32_ERROR
    assert (record.exactness.rows, record.predicted_bytes, record.seed) == (LENGTH, 7, 0)
    assert RunRecord.from_json(record.to_json()) == record


def test_every_layer_and_part_has_its_time(demo: LoadedModel) -> None:
    found = measure(demo, PREFILL, instruments=ALL).parts
    assert found is not None
    kinds = Counter((each.kind, each.layer) for each in found.parts)
    for layer in range(LAYERS):
        assert kinds["layer", layer] == kinds["attention", layer] == kinds["mlp", layer] == 1
        assert kinds["norm", layer] == 2
    assert kinds["head", None] == kinds["embedding", None] == 1
    assert found.overhead.value > 0
    for layer in (each for each in found.parts if each.kind == "layer"):
        inner = [p for p in found.parts if p.layer == layer.layer and p.kind != "layer"]
        assert sum(p.median_s for p in inner) < 1.5 * layer.median_s


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "tiled"])
def test_a_step_of_decode_is_measured_against_its_cache(demo: LoadedModel, backend: str) -> None:
    record = measure(demo, replace(DECODE, backend=backend), instruments=ALL)
    assert record.failure is None
    timeline, timing, peak = record.timeline, record.timing, record.peak
    assert timeline is not None
    assert timing is not None
    assert peak is not None
    assert timeline.nbytes[0][:2] == (demo.nbytes, CACHE)
    assert at_end(record)["kv_cache"] == CACHE // LENGTH * (LENGTH + 1)
    assert peak.allocated.value == timeline.totals[timeline.peak]
    assert record.tokens_per_s == pytest.approx(BATCH / timing.median_s)
    assert ("cache_filled_by", FILLED_BY) in record.parameters


@pytest.mark.parametrize(
    ("backend", "path"),
    [("sdpa_math", "math"), ("sdpa_flash", "flash (CPU)"), ("tiled", "tiled"), ("eager", "dense")],
)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_the_kernel_that_ran_is_named(
    demo: LoadedModel, backend: str, path: str, phase: Phase
) -> None:
    cell = Cell(backend=backend, phase=phase, batch=1, length=16, dtype="float32")
    attention = measure(demo, cell, instruments=BARE).attention
    assert attention is not None
    assert (attention.paths, attention.fallback) == (path, "")
    assert attention.kernels


def test_a_silent_fall_back_to_math_is_flagged(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def math(self, q_BHQD, k_BGKD, v_BGKD, mask_BHQK, causal, call):
        out_BHQD, _ = torch.ops.aten._scaled_dot_product_attention_math(
            q_BHQD, k_BGKD, v_BGKD, mask_BHQK, 0.0, causal, scale=call.scale, enable_gqa=True
        )
        return out_BHQD, None

    monkeypatch.setattr(SdpaFlash, "_kernel", math)
    record = measure(demo, replace(PREFILL, backend="sdpa_flash"), instruments=ALL)
    assert record.exactness is not None
    assert "sdpa_flash was asked for, and math ran" in record.flags


@pytest.mark.parametrize("planted", [0, 2])
def test_a_planted_slow_layer_is_the_slowest(demo: LoadedModel, planted: int) -> None:
    heavy = torch.randn(400, 400)
    slow: nn.Module = next(
        part.module for part in parts(demo.model) if (part.kind, part.layer) == ("mlp", planted)
    )

    def burn(*given: object) -> None:
        for _ in range(4):
            torch.mm(heavy, heavy)

    # Within the layer, and before the marks of its own.
    handle = slow.register_forward_pre_hook(burn)
    try:
        found = measure(demo, PREFILL, instruments=replace(BARE, parts=True)).parts
    finally:
        handle.remove()
    assert found is not None
    assert found.slowest("layer").layer == planted


def raising(error: Callable[[], Exception]):
    def attend(self: Tiled, *tensors: object, **others: object) -> AttentionOutput:
        raise error()

    return attend


def too_much(self: Tiled, *tensors: object, **others: object) -> AttentionOutput:
    raise AssertionError(torch.empty(2**52))


@pytest.mark.parametrize(
    "attend",
    [raising(lambda: torch.OutOfMemoryError("CUDA out of memory. Tried 7 GiB\nmore")), too_much],
)
@pytest.mark.parametrize("cell", [PREFILL, DECODE])
def test_out_of_memory_is_a_result(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, attend: Callable, cell: Cell
) -> None:
    monkeypatch.setattr(Tiled, "_attend", attend)
    record = measure(demo, replace(cell, backend="tiled"), instruments=ALL)
    assert record.failure is not None
    assert record.failure.outcome == "out_of_memory"
    assert record.failure.reason.startswith("Out of memory: ")
    assert "\n" not in record.failure.reason
    assert record.timing is record.peak is record.timeline is None
    assert RunRecord.from_json(record.to_json()) == record
    assert measure(demo, PREFILL, instruments=BARE).failure is None


def test_what_was_held_when_memory_ran_out_is_released_and_the_record_says_so(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    def attend(self: Tiled, *tensors: object, **others: object) -> AttentionOutput:
        scores = torch.ones(8)
        held.append(weakref.ref(scores))
        raise torch.OutOfMemoryError(f"CUDA out of memory beside {scores.nbytes} bytes")

    monkeypatch.setattr(Tiled, "_attend", attend)
    record = measure(demo, replace(PREFILL, backend="tiled"), instruments=BARE)
    assert [each() for each in held] == [None]
    assert "released" in record.notes[0]


def test_pytorchs_own_snapshot_is_no_part_of_a_run_off_cuda(
    demo: LoadedModel, tmp_path: Path
) -> None:
    steps = []
    chosen = replace(BARE, snapshot_to=tmp_path / "snapshot.pickle")
    record = measure(demo, PREFILL, instruments=chosen, report=steps.append)
    assert record.failure is None
    assert "memory snapshot" not in steps
    assert not list(tmp_path.iterdir())


def test_an_error_of_our_own_is_not_taken_for_a_lack_of_memory(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiled, "_attend", raising(lambda: RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        measure(demo, replace(PREFILL, backend="tiled"), instruments=ALL)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (replace(PREFILL, backend="sdpa_cudnn"), "PyTorch has this kernel on cuda only"),
        (replace(PREFILL, length=5000), "reads 2,048 tokens, and 5,000 were asked for"),
        (replace(PREFILL, length=0), "at least 1 token"),
        (replace(DECODE, backend="sdpa_efficient"), "PyTorch has this kernel on cuda only"),
    ],
)
def test_a_refusal_is_a_result(demo: LoadedModel, cell: Cell, words: str) -> None:
    failure = measure(demo, cell, instruments=BARE).failure
    assert failure is not None
    assert failure.outcome == "refused"
    assert words in failure.reason


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda out: out + 1e-3 * out.abs().mean(), "errs by"),
        (lambda out: out.masked_fill(out == out.max(), torch.nan), "holds NaN or infinity"),
    ],
)
def test_a_wrong_answer_gets_no_figures(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, spoil: Callable, words: str
) -> None:
    attend = Tiled._attend

    def wrong(self, *tensors, **others) -> AttentionOutput:
        right = attend(self, *tensors, **others)
        return replace(right, out_BHQD=spoil(right.out_BHQD))

    monkeypatch.setattr(Tiled, "_attend", wrong)
    record = measure(demo, replace(PREFILL, backend="tiled"), instruments=ALL)
    assert record.failure is not None
    assert record.failure.outcome == "wrong"
    assert words in record.failure.reason
    assert record.timing is None
    assert record.exactness is not None
    assert RunRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "sdpa_math", "tiled"])
def test_half_precision_is_held_to_pytorchs_own(backend: str) -> None:
    model = load("demo", device="cpu", dtype="bfloat16")
    cell = Cell(backend=backend, phase="prefill", batch=1, length=40, dtype="bfloat16")
    record = measure(model, cell, instruments=replace(BARE, judge=True))
    assert record.failure is None
    assert record.exactness is not None
    assert FLOAT32_ERROR < (record.exactness.relative.value or 0) < 0.05


def test_the_machine_is_watched_meanwhile(demo: LoadedModel) -> None:
    record = measure(demo, PREFILL, instruments=replace(BARE, sampler_hz=50))
    assert record.telemetry.samples
    missing = dict(record.telemetry.missing)
    assert "power_w" in missing
    assert record.energy is not None
    assert record.energy.joules.value is None
    assert record.energy.joules.reason == missing["power_w"]
    blind = measure(demo, PREFILL, instruments=BARE)
    assert blind.telemetry.samples == ()
    assert dict(blind.telemetry.missing)["load"] == "no sampler was asked for"


def test_what_cannot_be_asked_is_refused_at_once(demo: LoadedModel) -> None:
    with pytest.raises(InvalidCall, match="loaded in float32, and bfloat16 was asked for"):
        measure(demo, replace(PREFILL, dtype="bfloat16"))
    with pytest.raises(UnknownBackend):
        measure(demo, replace(PREFILL, backend="magic"), instruments=BARE)


def test_it_can_be_cancelled_between_instruments(demo: LoadedModel) -> None:
    def cancel(step: str) -> None:
        if step == "memory":
            raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        measure(demo, PREFILL, instruments=BARE, report=cancel)
    with torch.no_grad(), swapped(demo.model, "tiled") as swap:
        demo.model(input_ids=torch.tensor([[1, 2]]))
        assert swap.calls == LAYERS


def test_the_record_holds_what_repeats_it(demo: LoadedModel) -> None:
    failure = Failure(outcome="skipped", reason="why")
    record = unmeasured(demo, PREFILL, failure, instruments=Instruments(), predicted_bytes=9)
    assert record.key == key_of(demo, PREFILL, Instruments(), 0)
    assert record.key != key_of(demo, PREFILL, ALL, 0)
    assert (record.failure, record.predicted_bytes, record.cell) == (failure, 9, PREFILL)
    used = model_used(demo)
    assert record.model == used
    assert (used.source, used.architecture, used.weight_bytes) == ("demo", "qwen3", demo.nbytes)
    assert len(used.config_hash) == 64
    parameters = dict(record.parameters)
    assert (parameters["effort.runs"], parameters["cache"]) == ("20", "hot")
    versions = dict(record.machine.versions)
    assert versions["torch"].startswith("2.")
    assert {"python", "triton", "transformers", "cuda"} <= versions.keys()
    assert record.machine == machine_of(demo.device)
    assert record.machine.memory_bytes > 2**28
    assert record.machine.driver


def test_a_machine_with_a_gpu_needs_neither_rich_nor_psutil_nor_nvml() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('rich', 'psutil', 'pynvml')));"
        "import attnscope.app.cli, attnscope.models.loading;"
        "import attnscope.profiling.measure, attnscope.profiling.sweep;"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert told.stdout == "True\n", told.stderr


def test_who_watches_hears_every_timed_run_and_sample_and_may_end_it(demo: LoadedModel) -> None:
    runs: list[float] = []
    samples: list[Sample] = []
    watcher = Watcher(sample=samples.append, run=runs.append)
    watched = replace(BARE, sampler_hz=100.0)
    record = measure(demo, PREFILL, instruments=watched, watcher=watcher)
    assert record.timing is not None
    assert tuple(runs) == record.timing.samples_s
    assert tuple(samples) == record.telemetry.samples
    assert samples

    def cancel(taken: float) -> None:
        raise JobCancelled(f"after {taken}")

    with pytest.raises(JobCancelled):
        measure(demo, PREFILL, instruments=BARE, watcher=Watcher(sample=samples.append, run=cancel))
