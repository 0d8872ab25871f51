"""The saving measured: that both ways were run, in turns, and that less was held where less is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from attnscope.kernels.errors import InvalidCall, JobCancelled, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.loading import LoadedModel, load
from attnscope.profiling import sparse_saving
from attnscope.profiling.latency import Effort
from attnscope.profiling.sparse_saving import measure_saving

WINDOW = pattern("sliding_window", window=16)
QUICK = Effort(runs=3, seconds=0.0, warmup_runs=0, warmup_seconds=0.0)
IDS = list(range(5, 5 + 96))


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load("demo", device="cpu")


def test_both_are_run_in_turns_each_within_its_own_swap(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Any, Any]] = []
    real = sparse_saving.swapped

    @contextmanager
    def noted(model: Any, backend: Any, **others: Any) -> Iterator[Any]:
        opened.append((backend, others["patterns"]))
        with real(model, backend, **others) as swap:
            yield swap
            assert swap.calls == 4

    monkeypatch.setattr(sparse_saving, "swapped", noted)
    runs: list[str] = []
    found = measure_saving(
        demo,
        input_ids=IDS,
        patterns={0: WINDOW},
        dense_backend="eager",
        effort=QUICK,
        on_run=lambda name, _: runs.append(name),
    )
    assert opened[0] == ("tiled", {0: WINDOW})
    assert opened[1] == ("eager", None)
    # The first run of each, the timed ones, and one for the memory.
    assert opened.count(("eager", None)) == opened.count(("tiled", {0: WINDOW})) == 1 + 3 + 1
    assert sorted(runs) == ["dense"] * 3 + ["sparse"] * 3
    assert found.dense.count == found.sparse.count == 3
    assert found.speed_up.value == found.dense.median_s / found.sparse.median_s
    assert "only 3 runs" in found.speed_up.unsettled


def test_the_scores_that_eager_holds_are_seen_in_the_peak(demo: LoadedModel) -> None:
    ids = IDS * 8
    found = measure_saving(
        demo, input_ids=ids, patterns=WINDOW, dense_backend="eager", effort=QUICK
    )
    dense, sparse = found.dense_peak.transient.value, found.sparse_peak.transient.value
    assert dense is not None
    assert sparse is not None
    # Eager holds the scores of 8 heads in float32, the tiles a few megabytes at most.
    assert dense - sparse > 8 * len(ids) ** 2 * 4


def test_the_model_is_left_as_it_was(demo: LoadedModel) -> None:
    before = demo.model.config._attn_implementation
    measure_saving(demo, input_ids=IDS, patterns=WINDOW, effort=QUICK)

    def cancel(name: str, seconds: float) -> None:
        raise JobCancelled(f"{name} {seconds}")

    with pytest.raises(JobCancelled):
        measure_saving(demo, input_ids=IDS, patterns=WINDOW, effort=QUICK, on_run=cancel)
    assert demo.model.config._attn_implementation == before


def test_what_does_not_fit_is_refused_before_anything_runs(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.model, "forward", lambda *_a, **_k: pytest.fail("it ran"))
    with pytest.raises(InvalidCall, match="longer than the 96 tokens"):
        measure_saving(demo, input_ids=IDS, patterns=pattern("sliding_window", window=97))


def test_a_backends_refusal_comes_through(demo: LoadedModel) -> None:
    with pytest.raises(UnsupportedCall, match="Linformer"):
        measure_saving(demo, input_ids=IDS, backend="linformer", effort=QUICK)
