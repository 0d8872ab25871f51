"""Rates against runs of a known length, and what is kept of them."""

from dataclasses import replace

import pytest
import torch

from attnscope.models.shape import shape_of
from attnscope.profiling import ceilings, prediction
from attnscope.profiling.ceilings import (
    keep_ceilings,
    kept_ceilings,
    measure_ceilings,
)
from attnscope.profiling.hardware import devices
from attnscope.profiling.latency import Effort
from attnscope.profiling.machine import machine_of
from attnscope.profiling.plan import Plan
from attnscope.profiling.prediction import Roof, predicted, roof_of
from attnscope.profiling.probes import Probe, copy_probe, matmul_probe
from attnscope.profiling.record import Cell
from attnscope.profiling.roofline import work
from tests.profiling.clocks import Hands
from tests.profiling.measured_ceilings import CEILINGS

CPU = torch.device("cpu")
ONE = Effort(runs=4, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)


def test_a_product_and_a_copy_do_as_much_as_they_say():
    product = matmul_probe(CPU, "float32", 24)
    assert product.amount == 2 * 24**3
    copied = copy_probe(CPU, 1000)
    assert copied.amount == 2 * 1000
    results = product.call(), copied.call()
    assert [tuple(each.shape) for each in results if isinstance(each, torch.Tensor)] == [
        (24, 24),
        (250,),
    ]


def test_rates_are_amounts_over_medians_and_sides_grow_while_products_are_quick(monkeypatch):
    hands = Hands()
    sides = []

    def matmul(device, dtype, side):
        sides.append((dtype, side))
        # 10^9 and 10^12 FLOP a second: the slow one stays at the least side.
        rate = {"float32": 1e12, "float16": 1e9}[dtype]
        return Probe(call=hands.takes(dtype, 2 * side**3 / rate), amount=2 * side**3)

    monkeypatch.setattr(ceilings, "matmul_probe", matmul)
    monkeypatch.setattr(
        ceilings,
        "copy_probe",
        lambda device, nbytes: Probe(call=hands.takes("copy", 0.5, 0.5, 1.0, 2.0, 4.0), amount=8),
    )
    checks = []
    found = measure_ceilings(
        CPU,
        dtypes=("float32", "float16"),
        clock=hands.clock,
        effort=ONE,
        check=lambda: checks.append(1),
    )
    rates = {rate.of: rate for rate in found.products}
    assert rates["float32"].per_second == pytest.approx(1e12)
    assert rates["float16"].per_second == pytest.approx(1e9)
    assert rates["float32"].amount == 2 * 1024**3
    assert rates["float16"].amount == 2 * 256**3
    # Of 1, 2, 4 and 4 seconds, after the first and one to warm up.
    assert found.copy.per_second == pytest.approx(8 / 3)
    assert found.copy.p10 <= found.copy.per_second <= found.copy.p90
    assert found.copy.runs == 4
    assert len(checks) >= 12
    assert found.machine == machine_of(CPU)


def test_what_is_kept_is_found_for_the_same_device_and_versions_only(tmp_path, monkeypatch):
    mine = replace(CEILINGS, machine=machine_of(CPU))
    assert kept_ceilings(CPU, tmp_path) is None
    keep_ceilings(mine, tmp_path)
    assert kept_ceilings(CPU, tmp_path) == mine
    later = replace(mine, measured="2026-11-28T00:00:00+00:00")
    keep_ceilings(later, tmp_path)
    assert kept_ceilings(CPU, tmp_path) == later
    (path,) = tmp_path.glob("*")
    path.write_text("{")
    assert kept_ceilings(CPU, tmp_path) is None
    keep_ceilings(mine, tmp_path)
    versions = dict(mine.machine.versions) | {"torch": "99"}
    other = replace(mine.machine, versions=tuple(versions.items()))
    monkeypatch.setattr(ceilings, "machine_of", lambda device: other)
    assert kept_ceilings(CPU, tmp_path) is None


def test_a_gpu_is_the_same_with_its_number_and_without(tmp_path, monkeypatch):
    gpu = replace(machine_of(CPU), device="cuda", name="a GPU")
    keep_ceilings(replace(CEILINGS, machine=gpu), tmp_path)
    for device, is_known in (("cuda:0", True), ("cpu", False)):
        found = replace(gpu, device=device)
        monkeypatch.setattr(ceilings, "machine_of", lambda device, found=found: found)
        assert (kept_ceilings(CPU, tmp_path) is not None) is is_known


def test_measured_ceilings_come_before_listed_ones_and_say_so(tmp_path, monkeypatch):
    assert roof_of(CPU, "float32", tmp_path) is None
    listed = devices()[0]
    monkeypatch.setattr(prediction, "detected", lambda device: listed)
    roof = roof_of(CPU, "float32", tmp_path)
    assert roof is not None
    assert (roof.origin, roof.flops_per_second) == ("listed", listed.peak_flops["float32"])
    assert listed.name in roof.told
    keep_ceilings(replace(CEILINGS, machine=machine_of(CPU)), tmp_path)
    roof = roof_of(CPU, "float32", tmp_path)
    assert roof is not None
    assert (roof.origin, roof.flops_per_second, roof.bytes_per_second) == ("measured", 5e10, 1e10)
    # Most products were within 40 % of each other, and copies within 20 %.
    assert "beside other work: their runs differ by up to 40%" in roof.told


@pytest.mark.parametrize(("phase", "length"), [("prefill", 64), ("decode", 65)])
def test_the_least_time_is_that_of_the_calculators_work(phase, length):
    shape = shape_of("demo")
    cell = Cell(backend="tiled", phase=phase, batch=2, length=64, dtype="float32")
    plan = Plan(shape=shape, backend="tiled", batch=2, dtype="float32", phase=phase)
    done = work(plan, length)
    for flops, moved in ((1e9, 1e15), (1e15, 1e9)):
        roof = Roof(flops_per_second=flops, bytes_per_second=moved, origin="measured", told="")
        found = predicted(shape, cell, roof)
        assert found is not None
        assert found.seconds == done.seconds(flops_per_second=flops, bytes_per_second=moved)


def test_nobody_tells_the_time_of_what_the_model_cannot_do():
    roof = Roof(flops_per_second=1, bytes_per_second=1, origin="measured", told="")
    encoder = shape_of(
        {
            "model_type": "bert",
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
        }
    )
    cell = Cell(backend="tiled", phase="decode", batch=1, length=8, dtype="float32")
    assert predicted(encoder, cell, roof) is None
