"""The floor is under what was measured, and knows a score matrix by its formula."""

from dataclasses import replace

import pytest

from attnscope.models.loading import LoadedModel
from attnscope.profiling.asked import Instruments
from attnscope.profiling.floor import floor_bytes
from attnscope.profiling.latency import Effort
from attnscope.profiling.measure import measure
from attnscope.profiling.record import Cell, Phase

LONG = Cell(backend="eager", phase="prefill", batch=1, length=65_536, dtype="float32")
BARE = Instruments(
    effort=Effort(runs=1, seconds=0, warmup_runs=0, warmup_seconds=0),
    sampler_hz=None,
    judge=False,
    parts=False,
    timeline=False,
)


@pytest.mark.parametrize("backend", ["eager", "sdpa_flash", "sdpa_math", "tiled"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_no_run_takes_less(demo: LoadedModel, backend: str, phase: Phase) -> None:
    cell = Cell(backend=backend, phase=phase, batch=2, length=300, dtype="float32")
    peak = measure(demo, cell, instruments=BARE).peak
    floor = floor_bytes(demo, cell)
    assert peak is not None
    assert floor is not None
    assert demo.nbytes < floor <= (peak.allocated.value or 0)


def test_scores_that_cannot_fit_are_known_without_a_tensor(demo: LoadedModel) -> None:
    floor = floor_bytes(demo, LONG)
    assert floor is not None
    # Scores and probabilities of 8 heads in float32: 256 GiB and more.
    assert floor > 2 * 8 * LONG.length**2 * 4
    assert (floor_bytes(demo, replace(LONG, backend="tiled")) or 0) < 2**30
