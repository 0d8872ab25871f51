"""What a source says, held against a fake driver's known answers and the operating system's own."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling import sources
from attnscope.profiling.sources import FIGURES, open_source

DRIVER = Path(__file__).with_name("fake_nvml") / "pynvml.py"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pynvml", DRIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("target", ["GPU-fake", "0"])
def test_every_figure_of_a_gpu_in_its_unit(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setenv("FAKE_NVML_PID", "77")
    source = open_source(sources.NVML, target, 77)
    sample = source.read()
    assert (sample.device_bytes, sample.process_bytes) == (7 * 2**30, 5 * 2**30)
    assert (sample.utilisation, sample.power_w, sample.temperature_c) == (0.42, 300, 61)
    assert (sample.clock_mhz, sample.memory_clock_mhz) == (1980, 2619)
    assert sample.energy_j == pytest.approx(300 * sample.at_s, rel=0.01)
    assert sample.throttled == ("power cap", "thermal slowdown (hardware)")
    assert sample.others == 1
    assert source.missing == {}


@pytest.mark.usefixtures("driver")
def test_what_the_driver_does_not_say_is_none_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_NVML", "old")
    source = open_source(sources.NVML, "0", 77)
    sample = source.read()
    assert (sample.energy_j, sample.process_bytes, sample.others) == (None, None, None)
    assert sample.power_w == 300
    assert source.missing["energy_j"] == "the driver says: Not Supported"
    assert "lists no process 77" in source.missing["process_bytes"]
    assert "lists no process 77" in source.missing["others"]


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("state", "target", "words"),
    [("down", "0", "Driver Not Loaded"), ("", "GPU-other", "Not Found")],
)
def test_a_driver_that_does_not_answer_is_refused_in_its_words(
    monkeypatch: pytest.MonkeyPatch, state: str, target: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_NVML", state)
    with pytest.raises(InvalidCall, match=words):
        open_source(sources.NVML, target, 1)


def test_without_the_drivers_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(InvalidCall, match="pip install nvidia-ml-py"):
        open_source(sources.NVML, "0", 1)


def test_the_machine_says_what_the_operating_system_says() -> None:
    source = open_source(sources.MACHINE, "", os.getpid())
    before = source.read()
    held = torch.ones(2**25)
    after = source.read()
    assert before.process_bytes is not None
    assert after.process_bytes is not None
    assert after.process_bytes - before.process_bytes == pytest.approx(held.nbytes, rel=0.1)
    assert after.process_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    assert 0 < (after.device_bytes or 0) <= psutil.virtual_memory().total
    assert after.load is not None
    assert after.power_w is None
    assert set(source.missing) == {name for name in FIGURES if getattr(after, name) is None}


def test_without_psutil_the_load_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    source = open_source(sources.MACHINE, "", os.getpid())
    sample = source.read()
    assert sample.load is not None
    assert sample.process_bytes is None
    assert source.missing["process_bytes"] == "psutil is not installed"


@pytest.mark.parametrize("name", ["no.such.module:f", "json:no_such_function", ""])
def test_a_source_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidCall, match="There is no source"):
        open_source(name, "", 1)
