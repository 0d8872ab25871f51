"""The sampler is run as it is: a process of its own, with a source that the test knows."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling import sources
from attnscope.profiling.sampler import Sampler, sample_of, watch
from attnscope.profiling.sources import FIGURES, Sample
from tests.profiling.fake_source import Counting

ROOT = Path(__file__).parents[2]
COUNTING = "tests.profiling.fake_source:counting"
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


def until(condition, patience: float = 10.0) -> bool:
    ends = time.monotonic() + patience
    while not condition() and time.monotonic() < ends:
        time.sleep(0.01)
    return condition()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_samples_stream_in_order_while_it_runs_and_it_is_gone_afterwards() -> None:
    heard: list[Sample] = []
    began = time.monotonic()
    with Sampler(
        COUNTING, "100", hz=50, on_sample=heard.append, environment=ENVIRONMENT
    ) as sampler:
        assert sampler.samples[0].device_bytes == 101
        assert until(lambda: len(sampler.samples) >= 10)
        assert psutil.pid_exists(sampler.pid)
    ended = time.monotonic()
    assert not psutil.pid_exists(sampler.pid)
    counts = [each.device_bytes for each in sampler.samples]
    assert counts == list(range(101, 101 + len(counts)))
    assert heard == sampler.samples
    assert sampler.missing == {"power_w": "it has no meter"}
    times = [each.at_s for each in sampler.samples]
    assert times == sorted(times)
    assert began < times[0] < times[-1] < ended
    assert sampler.between(times[2], times[4]) == tuple(sampler.samples[2:5])


def test_a_gpu_is_sampled_through_its_driver() -> None:
    fake = Path(__file__).with_name("fake_nvml")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(fake)]),
        "FAKE_NVML_PID": str(os.getpid()),
    }
    with Sampler(sources.NVML, "GPU-fake", hz=50, environment=environment) as sampler:
        assert until(lambda: len(sampler.samples) >= 3)
    assert {each.power_w for each in sampler.samples} == {300}
    assert {each.process_bytes for each in sampler.samples} == {5 * 2**30}
    assert sampler.samples[0].throttled == ("power cap", "thermal slowdown (hardware)")
    assert sampler.missing == {}


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (sources.NVML, "GPU-none", "NVIDIA|nvidia-ml-py"),
        ("no.such:source", "", "There is no source"),
        ("tests.profiling.fake_source:broken", "x", "ended with code 1 before its first sample"),
    ],
)
def test_a_source_that_cannot_be_opened_leaves_reasons_and_no_samples(
    source: str, target: str, words: str
) -> None:
    with Sampler(source, target, environment=ENVIRONMENT) as sampler:
        pass
    assert sampler.samples == []
    assert set(sampler.missing) == set(FIGURES)
    for reason in sampler.missing.values():
        assert any(word in reason for word in words.split("|"))


def test_it_ends_with_its_parent_however_that_ends() -> None:
    parent = (
        "import os, sys, time\n"
        "from attnscope.profiling.sampler import Sampler\n"
        f"sampler = Sampler({COUNTING!r}, '0', hz=50).__enter__()\n"
        "print(sampler.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", parent],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == -9
    assert until(lambda: has_ended(int(told.stdout)))


@pytest.mark.parametrize("hz", [0, -1, 1000, float("nan")])
def test_a_rate_out_of_bounds_is_refused(hz: float) -> None:
    with pytest.raises(InvalidCall, match="samples a second"):
        Sampler(COUNTING, "0", hz=hz)


def test_the_rate_is_kept_by_the_clock_and_missing_figures_are_told_once() -> None:
    out, waits = io.StringIO(), []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        time.sleep(seconds)
        return len(waits) == 5

    watch(Counting(0), 50, out, wait)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0] == {"missing": Counting(0).missing}
    samples = [sample_of(line) for line in lines[1:]]
    assert [each.device_bytes for each in samples] == [1, 2, 3, 4, 5]
    assert all(0 <= each <= 0.02 for each in waits)
    assert samples[-1].at_s - samples[0].at_s >= 0.079


def test_a_sample_survives_its_line() -> None:
    sample = Sample(at_s=0.1 + 0.2, throttled=("power cap",), load=1 / 3)
    assert sample_of(json.loads(json.dumps(asdict(sample)))) == sample
