"""Ceilings are measured once for a device, and again on request; the measurement can be cancelled."""

import threading
from dataclasses import replace

import pytest
import torch

from attnscope.app.jobs import ceilings, work
from attnscope.kernels.errors import JobCancelled
from attnscope.profiling.ceilings import kept_ceilings
from attnscope.profiling.machine import machine_of
from tests.app.profiled import context_in
from tests.profiling.measured_ceilings import CEILINGS

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch):
    """Of which devices, in order; each measurement is a minute later than the one before."""
    devices = []

    def measure(device, *, check):
        check()
        devices.append(device)
        when = f"2026-11-27T10:{len(devices):02d}:00.000001+00:00"
        return replace(CEILINGS, measured=when, machine=machine_of(device))

    monkeypatch.setattr("attnscope.profiling.ceilings.measure_ceilings", measure)
    return devices


def test_they_are_measured_where_none_are_kept_and_anew_on_request(tmp_path, measured):
    context = context_in(tmp_path)
    ceilings.with_ceilings(CPU, context)
    ceilings.with_ceilings(CPU, context)
    assert measured == [CPU]
    told = work.WORK["ceilings"]({"device": "auto"}, context)
    assert measured == [CPU, CPU]
    kept = kept_ceilings(CPU, context.settings.ceilings_folder)
    assert kept is not None
    assert told == {"measured": kept.measured}
    assert "10:02" in kept.measured


def test_a_measurement_is_cancelled_and_keeps_nothing(tmp_path, measured):
    context = context_in(tmp_path)
    context.stop = threading.Event()
    context.report = lambda progress: context.stop.set()
    with pytest.raises(JobCancelled):
        ceilings.with_ceilings(CPU, context)
    assert measured == []
    assert kept_ceilings(CPU, context.settings.ceilings_folder) is None
