"""The GPU benchmark end to end: with planted backends on a planted clock, and as a toy on the CPU."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from attnscope.kernels.backends.backend import Backend, Refusal
from attnscope.kernels.backends.sdpa_flash import SdpaFlash
from attnscope.kernels.backends.tiled import Tiled
from attnscope.kernels.call import AttentionOutput
from attnscope.kernels.triton.tuned import read, shipped_entries
from benchmarks.gpu import backward, decode, errors, forward, generate, linear, maps, sparse, tune
from benchmarks.gpu.bench import Bench, compared, contest, described, geometric_mean, named
from benchmarks.gpu.ceilings import Ceilings
from benchmarks.gpu.contenders import Contender, contender
from benchmarks.gpu.problem import Verdict
from benchmarks.gpu.run import PARTS, shown, summary
from benchmarks.gpu.stopwatch import Stopwatch
from tests.inputs import Inputs

ROOT = Path(__file__).parents[2]
PLANS = {
    "errors": errors,
    "forward": forward,
    "decode": decode,
    "sparse": sparse,
    "maps": maps,
    "linear": linear,
    "tune": tune,
    "backward": backward,
}
RECORDS = {name: len(plan.calls(toy=True)) for name, plan in PLANS.items()}
RECORDS["generate"] = len(generate.CACHES)
RECORDS["memory"] = 2  # models
CALL = errors.calls(toy=True)[0]
AHEAD = ("portable", 64, torch.bfloat16, (9, 0))


class Ours(Tiled):
    name = "triton_planted"


class Wrong(Tiled):
    name = "triton_wrong"

    def _attend(self, *arguments, **named) -> AttentionOutput:
        answer = super()._attend(*arguments, **named)
        return replace(answer, out_BHQD=answer.out_BHQD * 1.1)


class Broken(Tiled):
    name = "triton_broken"

    def _attend(self, *arguments, **named) -> AttentionOutput:
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")


def bench(*backends, seconds: float = 30) -> Bench:
    ticks = count()
    watch = Stopwatch(
        kind="a test's clock",
        mark=lambda: next(ticks),
        between=lambda start, end: float(end - start),
        wait=lambda: None,
        flush=lambda: None,
        seconds=lambda: 0.1 * next(ticks),
    )
    return Bench(
        device=torch.device("cpu"),
        watch=watch,
        ceilings=Ceilings(matmul_flops=1e9, copy_bytes=1e9, exponentials=1e9),
        deadline=seconds,
        toy=True,
        backends=backends,
    )


def test_what_is_right_is_timed_and_compared_with_its_best_peer() -> None:
    (record,) = compared(bench(Ours(), SdpaFlash()), [CALL], timed=True)
    assert record["name"] == named(CALL)
    for found in record["backends"].values():
        assert found["right"]
        # The planted clock gives every call one millisecond.
        assert found["ms"]["median"] == 1
        assert found["of_matmul"] == pytest.approx(found["tflops"] * 1e12 / 1e9)
        assert len(found["samples_ms"]) == found["ms"]["count"]
    assert (record["ours"], record["best_peer"]) == ("triton_planted", "sdpa_flash")
    assert record["speed_ratio"] == 1
    assert record["timed_by"] == "a test's clock"


def test_what_is_wrong_or_fails_is_told_and_never_timed() -> None:
    (record,) = compared(bench(Ours(), Wrong(), Broken()), [CALL], timed=True)
    found = record["backends"]
    assert "ms" in found["triton_planted"]
    assert found["triton_wrong"]["right"] is found["triton_broken"]["right"] is False
    assert "allowed" in found["triton_wrong"]["reason"]
    assert found["triton_broken"]["reason"] == "OutOfMemoryError: tried to allocate 99 GiB"
    assert "ms" not in found["triton_wrong"]
    assert "ms" not in found["triton_broken"]
    assert "speed_ratio" not in record
    text = shown("forward", record)
    assert text.count("WRONG") == 2
    assert text.count(" ms ") == 1


def test_who_is_no_backend_takes_part_like_one() -> None:
    def pages(asked):
        return [Contender(name="triton_pages", run=contender(Tiled(), asked).run)], {"other": "why"}

    (record,) = compared(bench(SdpaFlash()), [CALL], timed=True, further=pages)
    assert record["backends"]["triton_pages"]["right"]
    assert record["refused"]["other"] == "why"
    assert (record["ours"], record["best_peer"]) == ("triton_pages", "sdpa_flash")


@pytest.mark.parametrize(("milliseconds", "expected"), [(0.01, True), (1, False)])
def test_short_calls_are_timed_as_graphs(milliseconds: float, expected: bool) -> None:
    captured = []

    def graph(call):
        captured.append(call)
        if len(captured) == 2:
            raise RuntimeError("not while capturing")
        return call

    timed = bench(Ours(), SdpaFlash())
    watch = replace(timed.watch, graph=graph, between=lambda *_: milliseconds)
    (record,) = compared(replace(timed, watch=watch), [CALL], timed=True)
    said = [found.get("graph") for found in record["backends"].values()]
    reason = "RuntimeError: not while capturing"
    assert said == (["yes", reason] if expected else [None, None])
    assert all(found["ms"]["median"] == milliseconds for found in record["backends"].values())


def test_the_decode_plan_is_the_grid_of_its_goal() -> None:
    plan = decode.calls(toy=False)
    assert len(plan) == 27
    assert {(call.query_heads, call.kv_heads) for call in plan} == {(32, 8), (64, 8), (32, 4)}
    assert {call.key_length for call in plan} == {4096, 32_768, 131_072}
    assert {call.batch for call in plan} == {1, 8, 32}
    assert {call.head_dim for call in plan} == {128}
    assert all(call.key_length % decode.PAGE == 0 for call in plan)


def test_generation_is_wrong_from_the_first_token_that_differs() -> None:
    tokens_BT, logits_BTV = torch.tensor([[1, 2, 3]]), torch.zeros(1, 3, 5)
    other_BT = torch.tensor([[1, 4, 0]])
    found = generate._verdict(other_BT, logits_BTV, tokens_BT, logits_BTV)
    assert not found["right"]
    assert found["reason"] == "token 1 is not that of eager"
    found = generate._verdict(tokens_BT, logits_BTV + 0.5, tokens_BT, logits_BTV)
    assert found["right"]
    assert found["error"] == 0.5


def test_who_refuses_is_recorded_with_the_reason_and_those_not_timed_take_no_part() -> None:
    capped = replace(CALL, softcap=3.0)
    (record,) = compared(bench(Ours(), SdpaFlash(), Tiled()), [capped], timed=True)
    assert list(record["backends"]) == ["triton_planted"]
    assert "softcap" in record["refused"]["sdpa_flash"]
    (judged,) = compared(bench(Ours(), Tiled()), [capped], timed=False)
    assert list(judged["backends"]) == ["triton_planted", "tiled"]
    assert "ms" not in judged["backends"]["tiled"]


def test_a_call_for_which_no_time_is_left_is_recorded_as_not_run() -> None:
    records = list(compared(bench(Ours(), seconds=0), [CALL, CALL], timed=True))
    assert [record["not_run"] for record in records] == ["out of time"] * 2
    assert summary("forward", records)["not_run"] == 2


def test_who_would_begin_after_the_deadline_is_not_tried_and_then_nothing_is_compared() -> None:
    # The clock ticks a tenth of a second when it is asked, so the second comes too late.
    late = bench(seconds=0.05)
    contenders = [Contender(name=name, run=lambda: None) for name in ("triton_a", "b", "c")]
    judge = partial(verdict_of, right=True)
    record = contest(late, CALL, contenders, judge, deadline=1.0)
    assert list(record["backends"]) == ["triton_a"]
    assert record["not_tried"] == ["b", "c"]
    assert "speed_ratio" not in record
    assert "no time was left for: b, c" in shown("forward", record)


def verdict_of(candidate: Contender, *, right: bool) -> Verdict:
    del candidate
    return Verdict(right=right, reason=None, error=0, relative=0, ratio=1, lse_error=None)


def test_a_summary_counts_what_is_right_and_means_what_was_compared() -> None:
    records = list(compared(bench(Ours(), Wrong(), SdpaFlash()), [CALL, CALL], timed=True))
    total = summary("forward", records)
    assert total["right"] == {
        "triton_planted": "2 of 2",
        "triton_wrong": "0 of 2",
        "sdpa_flash": "2 of 2",
    }
    assert total["speed_ratio_geomean"] == pytest.approx(1)
    assert total["error_ratio"]["triton_wrong"] is None
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert geometric_mean([]) is None


def test_less_to_see_is_held_against_causal_attention() -> None:
    records = list(sparse.sparse(bench(Ours(), seconds=1e9)))
    assert records[0]["density"] == records[0]["density_by_pairs"] == 1
    for record in records:
        # Every call takes a millisecond here, so what a pattern saves is not saved.
        found = record["backends"]["triton_planted"]
        assert found["efficiency"] == pytest.approx(record["density"])
        assert found["efficiency_by_pairs"] == pytest.approx(record["density_by_pairs"])
        assert "flex_ratio" not in record
    assert records[1]["density_by_pairs"] < 0.5


class OursIfSparse(Ours):
    name = "triton_sparse_planted"

    def refuses(self, call, device) -> Refusal | None:
        causal = call.pattern.key == "causal"
        return Refusal(reason="dense", remedy="Use tiled.") if causal else None


class PlantedFlex(Tiled):
    name = "flex"


def test_a_kernel_for_sparse_patterns_alone_is_held_against_our_dense_one(monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.bench.contender", _as_it_is)
    records = list(sparse.sparse(bench(Ours(), OursIfSparse(), PlantedFlex(), seconds=1e9)))
    assert list(records[0]["backends"]) == ["triton_planted", "flex"]
    for record in records[1:]:
        found = record["backends"]["triton_sparse_planted"]
        assert found["efficiency"] == pytest.approx(record["density"])
        assert record["flex_ratio"] == 1


def _as_it_is(backend: Backend, asked: Inputs) -> Contender:
    run = partial(backend.run, *asked.tensors, asked.call, **asked.extras)
    return Contender(name=backend.name, run=run)


def test_the_sparse_plan_keeps_a_small_share_of_the_blocks() -> None:
    plan = sparse.calls(toy=False)
    causal, *shares = [sparse._blocks(call) for call in plan]
    assert all(0.03 < share / causal < 0.3 for share in shares)
    assert {call.pattern.key for call in plan} >= {"bigbird", "longformer", "strided"}


@pytest.mark.parametrize("kernel", ["portable", "hopper"])
def test_tuning_tries_what_ships_and_what_fits(kernel: str) -> None:
    for entry in shipped_entries():
        if entry.kernel != kernel or entry.dtype != "half":
            continue
        first, *others = tune.candidates(entry)
        assert first == entry
        assert len({tune.named(each) for each in (first, *others)}) == 1 + len(others) > 4
        assert all(tune.needed_bytes(each) <= tune.SHARED_BYTES for each in others)
        # Triton builds warps of their own with 4 others; they take more memory, and no padding.
        assert all(each.warps == 4 for each in others if each.specialized)
        apart = kernel == "hopper" and entry.width < 256 and entry.rules != ("padded",)
        assert any(each.specialized for each in others) == apart


def test_what_tuning_finds_is_the_data_file_with_that_in_it(tmp_path: Path) -> None:
    kind = {"kernel": "hopper", "width": 128, "dtype": "bfloat16", "capability": (9, 0)}
    changes = {"tiles": (64, 128), "warps": 4, "stages": 3, "specialized": False}
    record = {"best": [(kind | {"rule": "causal"}, changes | {"preferred": True})]}
    path = tune.write_tuned(
        [record, {"not_run": "out of time"}], tmp_path, "NVIDIA H200, CUDA 13.0"
    )
    assert path is not None
    entries, origins = read(path.read_text())
    (found,) = (each for each in entries if each.preferred)
    assert (found.kernel, found.rules, found.tiles) == ("hopper", ("causal",), (64, 128))
    assert origins[found.origin]["device"] == "NVIDIA H200, CUDA 13.0"
    assert origins[found.origin]["triton"]
    assert {"full", "window"} <= {
        rule for each in entries for rule in each.rules if each.kernel == "hopper"
    }
    assert tune.write_tuned([{"not_run": "out of time"}], tmp_path / "none", "a GPU") is None


def test_candidates_are_compiled_ahead_and_what_does_not_compile_is_left_to_be_tried(
    monkeypatch,
) -> None:
    # One process is enough, and each imports PyTorch.
    monkeypatch.setattr(tune.os, "cpu_count", lambda: 1)
    (call, *_) = (call for call in tune.calls(toy=False) if call.head_dim == 64)
    entry = next(each for each in shipped_entries() if each.fits(*AHEAD, rule="causal"))
    # Triton takes powers of 2 of warps.
    pairs = [(call, replace(entry, warps=3)), (call, replace(entry, tiles=(64, 32), warps=4))]
    assert tune.compile_ahead(pairs, (9, 0), seconds=250) == 1


class WrongGradient(SdpaFlash):
    def _attend(self, q_BHQD, *arguments, **named) -> AttentionOutput:
        return super()._attend(q_BHQD + 0.1 * (q_BHQD - q_BHQD.detach()), *arguments, **named)


def test_gradients_are_judged_before_they_are_timed() -> None:
    (record, *_) = backward.backward(bench(SdpaFlash(), seconds=1e9))
    found = record["backends"]["sdpa_flash"]
    assert found["right"]
    assert found["ratio"] > 0
    assert found["ms"]["median"] == 1
    assert "repeatable" not in record
    (record, *_) = backward.backward(bench(WrongGradient(), seconds=1e9))
    found = record["backends"]["sdpa_flash"]
    assert "allowed" in found["reason"]
    assert "ms" not in found


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("toy", [True, False], ids=["toy", "real"])
def test_a_plan_names_each_call_once_and_can_be_written_down(name: str, toy: bool) -> None:
    plan = PLANS[name].calls(toy=toy)
    assert len({named(call) for call in plan}) == len(plan)
    assert json.loads(json.dumps([described(call) for call in plan]))
    if toy:
        assert all(call.dtype != "bfloat16" for call in plan)


def test_the_forward_plan_is_the_grid_of_its_goal() -> None:
    plan = forward.calls(toy=False)
    assert len(plan) == 16
    assert {call.batch * call.query_length for call in plan} == {16_384}
    assert {call.query_heads * call.head_dim for call in plan} == {2048}


def test_a_toy_run_goes_from_end_to_end_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--minutes", "4"]
    command += [word for name in PARTS for word in ("--only", name)]
    result = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WRONG" not in result.stdout
    lines: list[dict[str, Any]] = []
    for name in PARTS:
        (path,) = tmp_path.glob(f"*_toy_gpu_{name}.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(lines) == RECORDS[name] + 1
        assert all(line["toy"] and line["device"].endswith("no GPU") for line in lines)
        timed = [line for line in lines if "timed_by" in line]
        assert all("nothing of a GPU" in line["timed_by"] for line in timed)
        if name != "memory":
            assert any(found.startswith("triton") for found in lines[-1]["right"])
    # Tuning came last: each of its calls has a fastest configuration, and they are in its file.
    assert all(
        re.match(r"(portable|hopper) \(16, 16, 4, \d\)", line["table"]) for line in lines[:-1]
    )
    entries, origins = read((tmp_path / "tuned.toml").read_text())
    (name,) = {each.origin for each in entries} - {"paper"}
    assert name.startswith("toy")
    assert origins[name]["device"] == "no GPU"
    (path,) = tmp_path.glob("*_toy_gpu_goals.jsonl")
    table = [json.loads(line) for line in path.read_text().splitlines()]
    assert "K5 errors" in result.stdout
    assert all(row["toy"] for row in table)
    # A toy tells nothing of speed.
    assert {row["reached"] for row in table if not row["name"].startswith("K5")} == {"not measured"}
