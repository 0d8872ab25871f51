"""Advice is the calculator's and the roofline's numbers, ranked; changing a limit moves it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.advisor import Change, advise
from attnscope.profiling.calculator import estimate
from attnscope.profiling.hardware import DeviceSpec, device
from attnscope.profiling.plan import Plan
from attnscope.profiling.prospects import PHASES, Request, ranked
from attnscope.profiling.roofline import work
from attnscope.profiling.solver import longest
from attnscope.profiling.store_rows import row_of
from tests.profiling.records import RECORD

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SLOW = DeviceSpec(
    name="A processor",
    memory_bytes=2**33,
    bandwidth=2e10,
    peak_flops={"float32": 1e11},
    source="invented",
)
ERRORS = {"sliding_window:64": 0.3, "sliding_window:256": 0.08, "linear": 0.97}


@cache
def demo() -> ModelShape:
    return shape_of("demo")


def asked(**changed: object) -> Request:
    given = {
        "shape": demo(),
        "source": "demo",
        "device": device("RTX 4090"),
        "where": CUDA,
        "length": 4096,
    }
    return Request(**given | changed)  # pyright: ignore[reportArgumentType]


def first(**changed: object) -> str:
    return ranked(asked(**changed))[0][0].candidate.key


def of(changes: tuple[Change, ...], what: str) -> Change:
    return next(change for change in changes if change.what == what)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_every_number_is_the_calculators_and_the_rooflines(phase: str) -> None:
    request = asked(phase=phase, batch=3, tolerated=0.5, errors=ERRORS)
    spec = request.device
    found = ranked(request)[0]
    assert {"sdpa_flash", "eager", "sliding_window:64"} <= {p.candidate.key for p in found}
    for each in found:
        cell = {"backend": each.candidate.backend, "batch": 3, "dtype": "bfloat16", "phase": phase}
        told = estimate(each.candidate.shape, length=4096, **cell)
        assert each.nbytes == told.total_bytes
        done = work(Plan(shape=each.candidate.shape, **cell), 4096)
        slower = max(done.flops / spec.peak_flops["bfloat16"], done.nbytes / spec.bandwidth)
        assert each.least_s == each.expected_s == slower
        assert each.fits == (told.total_bytes <= spec.memory_bytes)
    assert [p.rank for p in found] == sorted(p.rank for p in found)


def test_the_device_the_length_the_phase_and_the_tolerance_move_the_answer() -> None:
    assert first() == "sdpa_flash"
    # Without tensor cores in float32 the flash kernels of a GPU refuse; on a CPU PyTorch's runs.
    assert first(dtype="float32") == "triton"
    assert first(dtype="float32", device=SLOW, where=CPU) == "sdpa_flash"
    assert first(tolerated=0.1, errors=ERRORS) == "sliding_window:256"
    assert first(tolerated=0.4, errors=ERRORS) == "sliding_window:64"
    assert first(tolerated=0.4, errors=ERRORS, length=64) == "sdpa_flash"
    prompt, step = (ranked(asked(phase=phase, free_bytes=20 * 2**20))[0] for phase in PHASES)
    assert not prompt[0].fits
    assert step[0].fits
    keys = [{each.candidate.key for each in found} for found in (prompt, step)]
    assert "triton_decode" in keys[1] - keys[0]


def test_what_changes_its_mind_does_when_it_is_done() -> None:
    request = asked(tolerated=0.4, errors=ERRORS)
    found = advise(request)
    shorter = of(found.changes, "shorter")
    assert shorter.at is not None
    at = advise(replace(request, length=int(shorter.at))).first.candidate
    assert at.title == shorter.first != found.first.candidate.title
    above = advise(replace(request, length=int(shorter.at) + 1)).first.candidate
    assert above.key == found.first.candidate.key
    stricter = of(found.changes, "exactness")
    assert (stricter.at, stricter.first) == (0.0, "SDPA flash")


def test_it_says_how_long_and_how_large_it_fits() -> None:
    request = asked(free_bytes=2**30)
    found = advise(request)
    fits = of(found.changes, "fits")
    assert fits.at == longest(demo(), memory_bytes=2**30, backend="sdpa_flash")
    needed = found.first.nbytes
    assert of(found.changes, "memory").at == needed
    assert ranked(replace(request, free_bytes=needed))[0][0].fits
    assert not ranked(replace(request, free_bytes=needed - 1))[0][0].fits
    batch = of(found.changes, "batch")
    assert batch.at is not None
    for size, expected in ((int(batch.at), True), (int(batch.at) + 1, False)):
        assert ranked(replace(request, batch=size))[0][0].fits is expected


def test_the_least_tolerance_that_moves_it_is_found() -> None:
    found = advise(asked(errors=ERRORS))
    change = of(found.changes, "exactness")
    assert change.at == 0.08
    assert advise(asked(errors=ERRORS, tolerated=0.08)).first.candidate.title == change.first


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_past_the_length_at_which_attention_leads_state_space_models_are_named(phase: str) -> None:
    at = of(advise(asked(phase=phase)).changes, "attention").at
    assert at is not None
    for length, leads in ((int(at) - 1, False), (int(at), True)):
        request = asked(phase=phase, length=length)
        found = advise(request)
        done = found.first.work
        parts = (
            (done.attention_flops, done.matmul_flops)
            if phase == "prefill"
            else (done.attention_bytes, done.weight_bytes)
        )
        assert (parts[0] >= parts[1]) is leads
        assert found.beyond is leads


def runs(medians: Mapping[str, float]) -> tuple:
    """Runs of the demo on the invented device, a prompt of 512 tokens, median seconds by backend."""
    rows = []
    for backend, median in medians.items():
        row = row_of(RECORD)
        rows.append(
            replace(
                row,
                model_source="demo",
                backend=backend,
                phase="prefill",
                dtype="float32",
                device_name="A processor",
                batch=1,
                length=512,
                median_s=median,
                outcome="measured",
            )
        )
    return tuple(rows)


def test_measured_runs_are_quoted_and_correct_the_order() -> None:
    here = {"device": SLOW, "where": CPU, "dtype": "float32", "length": 512}
    plain, stretch = ranked(asked(**here))
    assert (plain[0].candidate.key, stretch) == ("sdpa_flash", 1)
    slow = {"sdpa_flash": 10.0, "tiled": 0.5}
    found, stretch = ranked(asked(**here, runs=runs(slow)))
    by = {each.candidate.key: each for each in found}
    assert by["tiled"].expected_s == pytest.approx(0.5)
    assert by["sdpa_flash"].expected_s == pytest.approx(10.0)
    assert by["sdpa_flash"].quoted is not None
    assert found[0].candidate.key == "tiled"
    behind = [each.quoted.behind for each in found if each.quoted is not None]
    assert stretch == pytest.approx(sum(behind) / 2)
    assert by["eager"].expected_s == pytest.approx(stretch * by["eager"].least_s)
    elsewhere = tuple(replace(row, device_name="Another") for row in runs(slow))
    assert ranked(asked(**here, runs=elsewhere))[0][0].quoted is None


def test_a_run_of_another_length_tells_how_far_behind_the_roofline_it_was() -> None:
    here = {"device": SLOW, "where": CPU, "dtype": "float32"}
    near, far = runs({"tiled": 0.5})[0], replace(runs({"tiled": 9.0})[0], length=64)
    found, _ = ranked(asked(**here, length=1024, runs=(far, near)))
    tiled = next(each for each in found if each.candidate.key == "tiled")
    assert tiled.quoted is not None
    assert tiled.quoted.row == near
    at_512 = next(p for p in ranked(asked(**here, length=512))[0] if p.candidate.key == "tiled")
    assert tiled.expected_s == pytest.approx(tiled.least_s * 0.5 / at_512.least_s)


def test_what_is_left_out_says_why() -> None:
    reasons = {each.key: each.reason for each in advise(asked()).excluded}
    assert "exactness is demanded" in reasons["linear"]
    assert "future" in reasons["linformer"]
    reasons = {e.key: e.reason for e in advise(asked(tolerated=0.1, errors=ERRORS)).excluded}
    assert "30.0%" in reasons["sliding_window:64"]
    assert "nobody has measured" in reasons["performer"]


def test_patterns_other_than_windows_are_no_candidates_where_they_cannot_be_laid_out() -> None:
    families = {one.family for one in asked(length=131_072).field[0]}
    assert {"bigbird", "dilated", "strided", "block_sparse", "chunked", "longformer"} <= families
    found, without = asked(length=131_073).field
    assert {one.family for one in found if one.pattern is not None} == {"sliding_window"}
    assert "too slow to advise by" in next(one.reason for one in without if one.key == "laid")
    assert "no grid" in next(one.reason for one in without if one.key == "axial")


def test_a_pattern_saves_what_it_hides_and_its_cache_what_it_need_not_hold() -> None:
    errors = {one.key: 0.1 for one in asked().field[0] if not one.exact}
    for phase in PHASES:
        found = {
            each.candidate.key: each
            for each in ranked(asked(phase=phase, tolerated=0.5, errors=errors))[0]
        }
        whole, chunk, bigbird = (
            found[key] for key in ("sdpa_flash", "chunked:128", "bigbird:64,16,1,16,0")
        )
        if phase == "prefill":
            assert max(chunk.work.flops, bigbird.work.flops) < whole.work.flops
        else:
            assert chunk.nbytes < whole.nbytes
            # No decoding kernel skips keys: all of its cache is read.
            assert bigbird.work.flops == whole.work.flops


def test_on_a_gpu_a_pattern_is_given_to_a_kernel_and_not_to_operators_one_by_one() -> None:
    backends = {one.key: one.backend for one in asked().field[0]}
    assert backends["sliding_window:64"] == "triton"
    assert backends["strided:32"] == backends["bigbird:64,16,1,16,0"] == "flex"


def test_sinks_are_worth_a_thought_where_the_beginning_is_needed() -> None:
    keys = {
        workload: {one.key for one in asked(workload=workload).field[0]}
        for workload in ("document", "generation", "multimodal", "retrieval")
    }
    assert "sinks_window:256,4" in keys["generation"] & keys["retrieval"]
    assert "sinks_window:256,4" not in keys["document"] | keys["multimodal"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"length": 0}, "at least 1", id="no token"),
        pytest.param({"batch": 0}, "at least 1", id="no sequence"),
        pytest.param({"phase": "training"}, "prefill or decode", id="phase"),
        pytest.param({"tolerated": 1.5}, "from 0 to 1", id="error"),
        pytest.param({"workload": "poetry"}, "document, generation", id="workload"),
        pytest.param({"device": SLOW}, "no published rate in bfloat16", id="dtype"),
    ],
)
def test_what_cannot_be_asked_is_told(changed: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        asked(**changed)
    assert words in str(caught.value)


def test_a_model_that_takes_no_backend_has_its_own_attention_alone() -> None:
    bloom = {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}
    found = advise(asked(shape=shape_of(bloom), source="bloom"))
    assert [each.candidate.key for each in found.ranked] == ["transformers_eager"]
    assert found.runner_up is None
