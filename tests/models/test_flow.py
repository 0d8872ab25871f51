"""Attention flow, against the least of all cuts, which bounds every flow and is reached by the greatest."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.models import flow as engine
from attnscope.models.capture import capture
from attnscope.models.flow import RESOLUTION, flow, max_flow
from attnscope.models.loading import LoadedModel
from attnscope.models.rollout import Mixture, rollout

Family = Callable[[str], LoadedModel]


def least_cut(widths_LTT: np.ndarray, source: int, target: int) -> float:
    """Of all ways to divide the nodes, the least width that leads from the source's side to the target's."""
    layers, places, _ = widths_LTT.shape
    top, bottom = np.arange(places) == source, np.arange(places) != target
    least = np.inf
    for sides in product([False, True], repeat=(layers - 1) * places):
        inner = np.array(sides).reshape(layers - 1, places)
        # Other places at the top have no way in and at the bottom none out: they stand where they cut nothing.
        side = [top, *inner, bottom]
        cut = sum(
            widths_LTT[layer][np.ix_(side[layer], ~side[layer + 1])].sum()
            for layer in range(layers)
        )
        least = min(least, float(cut))
    return least


def whole(widths_LTT: np.ndarray) -> np.ndarray:
    return np.rint(widths_LTT / RESOLUTION).astype(np.int64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("causal", [False, True])
def test_the_flow_is_the_least_cut(seed: int, causal: bool) -> None:
    widths_LTT = np.random.default_rng(seed).dirichlet(np.ones(4) / 3, size=(3, 4))
    widths_LTT = np.tril(widths_LTT) if causal else widths_LTT
    for source, target in ((3, 0), (2, 1), (1, 1), (0, 3)):
        found = max_flow(whole(widths_LTT), source, target)
        exact = least_cut(widths_LTT, source, target)
        assert found == pytest.approx(exact, abs=64 * RESOLUTION)


def test_a_narrow_layer_bounds_what_two_paths_carry_together() -> None:
    # From 0 down to 0 and 1 in equal parts; both lead to 0, by pipes of 0.5 and 0.2.
    widths_LTT = np.array([[[0.5, 0.5], [0, 0]], [[0.5, 0.5], [0.2, 0.8]]])
    assert max_flow(whole(widths_LTT), 0, 0) == pytest.approx(0.7, abs=1e-9)
    # Rollout multiplies along each path, and adds.
    assert (widths_LTT[0] @ widths_LTT[1])[0, 0] == pytest.approx(0.35)
    assert max_flow(whole(widths_LTT), 1, 0) == 0


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "bert"])
def test_flow_through_a_model_is_that_of_its_weights(tiny_family: Family, family: str) -> None:
    captured = capture(tiny_family(family), "hello")
    found = flow(captured, -2)
    layers = [
        0.5 * np.mean([captured.tile(layer, head) for head in range(4)], 0) + 0.5 * np.eye(5)
        for layer in (1, 0)
    ]
    assert found.token == 3
    assert found.layers == (1, 0)
    for place, value in enumerate(found.values_T):
        assert value == pytest.approx(least_cut(np.array(layers), 3, place), abs=1e-6)
    # What paths carry, all at once, is never more than the pipes could.
    assert (rollout(captured, -2).values_N <= found.values_T + 1e-6).all()


def test_a_window_is_a_network_of_its_own(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), "hello hello")
    everything = flow(captured, 9).values_T
    part = flow(captured, 9, tokens=range(4, 10))
    assert part.start == 4
    assert (part.values_T <= everything[4:10] + 1e-6).all()
    assert part.values_T[-1] > 0.2
    alone = flow(captured, 9, how=Mixture(attention=0)).values_T
    np.testing.assert_array_equal(alone, np.arange(11) == 9)


def test_what_cannot_be_is_refused(tiny_family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture(tiny_family("llama"), "hello hello")
    with pytest.raises(InvalidCall, match="Token 3 is not in the window from 4 to 9"):
        flow(captured, 3, tokens=range(4, 10))
    with pytest.raises(InvalidCall, match="within 0 to 11, got 4 to 12"):
        flow(captured, 5, tokens=range(4, 12))
    monkeypatch.setattr(engine, "MOST_TOKENS", 8)
    with pytest.raises(InvalidCall, match="these are 11") as caught:
        flow(captured, 10)
    assert "such as 3 to 10" in caught.value.remedy


def test_progress_is_told_a_token_at_a_time_and_stops(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), "abc")
    told: list[tuple[float, str]] = []
    flow(captured, 2, progress=lambda *step: told.append(step))
    assert [words for _, words in told] == [f"token {n} of 3" for n in (1, 2, 3)]

    def stop(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        flow(captured, 2, progress=stop)
