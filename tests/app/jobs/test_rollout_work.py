"""What the worker finds of a capture's rollout, against the engine itself, and what it keeps."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnscope.app.jobs import rollout_work
from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.flow import flow
from attnscope.models.loading import load
from attnscope.models.rollout import Mixture, rollout, rollout_map

ID = "a" * 32
HOW = {"attention": 0.5, "first": 0, "last": 3, "heads": [[1, 5]], "by_value": False}
ASKED = {"capture": ID, "attention": None, "sequence": 0, "how": HOW}
MIXTURE = Mixture(first=0, last=3, heads={1: (5,)})


@pytest.fixture(scope="module")
def captured() -> Capture:
    torch.set_num_threads(1)
    return capture(load("demo"), 3 * "Mara found the silver key. ", backend="tiled")


@pytest.fixture
def context(captured: Capture, tmp_path) -> Context:
    context = Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())
    shelf(context).add(ID, captured)
    return context


def test_a_token_is_told_by_position_and_layer(captured: Capture, context: Context) -> None:
    asked = {**ASKED, "token": 9, "direction": "from"}
    answer = rollout_work.roll_out(asked, context)
    exact = rollout(captured, 9, how=MIXTURE)
    assert answer["layers"] == [3, 2, 1, 0]
    assert answer["positions"] == list(range(answer["length"]))
    np.testing.assert_allclose(answer["shares"], exact.values_N, rtol=1e-4)
    np.testing.assert_allclose(answer["trail"], exact.values_LN, rtol=1e-4)
    alone = np.mean([captured.row(3, head, 9) for head in range(8)], 0)
    np.testing.assert_allclose(answer["alone"], alone, rtol=1e-3, atol=1e-7)
    partner = int(np.where(np.arange(len(exact.values_N)) == 9, 0, exact.values_N).argmax())
    assert [reader["layer"] for reader in answer["readers"]] == [0, 1, 2, 3]
    for reader in answer["readers"]:
        heads = MIXTURE.heads.get(reader["layer"], range(8))
        weights = {head: captured.row(reader["layer"], head, 9)[partner] for head in heads}
        assert (reader["query"], reader["key"]) == (9, partner)
        assert reader["head"] == max(weights, key=lambda head: weights[head])
        assert reader["weight"] == pytest.approx(max(weights.values()), rel=1e-4)


def test_what_was_found_is_kept_and_found_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**ASKED, "token": 9, "direction": "to"}
    answer = rollout_work.roll_out(asked, context)
    monkeypatch.setattr(rollout_work, "_roll_out", lambda *_: pytest.fail("found anew"))
    assert rollout_work.roll_out(asked, context) == json.loads(json.dumps(answer))


def test_a_long_prompt_tells_the_largest_and_pools_the_trail(
    context: Context, captured: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_work, "MOST_LISTED", 5)
    monkeypatch.setattr(rollout_work, "COLUMNS", 4)
    answer = rollout_work.roll_out({**ASKED, "token": 9, "direction": "from"}, context)
    exact = rollout(captured, 9, how=MIXTURE)
    assert 4 <= len(answer["positions"]) <= 5
    assert 9 in answer["positions"]
    assert set(np.argsort(-exact.values_N)[:4]) <= set(answer["positions"])
    for row, values_N in zip(answer["trail"], exact.values_LN, strict=True):
        pooled = np.add.reduceat(values_N, answer["edges"][:-1])
        np.testing.assert_allclose(row, pooled, rtol=1e-4)


def test_the_map_and_the_flow(context: Context, captured: Capture) -> None:
    answer = rollout_work.draw_map(ASKED, context)
    exact = rollout_map(captured, 512, 512, how=MIXTURE)
    np.testing.assert_allclose(answer["values"], exact.values_MC, rtol=1e-4)
    flows = rollout_work.flow_to({**ASKED, "token": 9, "start": 4, "end": 10}, context)
    expected = flow(captured, 9, tokens=range(4, 10), how=MIXTURE).values_T
    np.testing.assert_allclose(flows["values"], expected, rtol=1e-4)


@pytest.mark.parametrize("work", [rollout_work.roll_out, rollout_work.draw_map])
def test_a_visitor_who_no_longer_waits_ends_it(context: Context, work: Callable) -> None:
    context.stop.set()
    with pytest.raises(JobCancelled):
        work({**ASKED, "token": 9, "direction": "from"}, context)


def test_no_such_prompt(context: Context) -> None:
    with pytest.raises(InvalidCall, match="no sequence 1"):
        rollout_work.draw_map({**ASKED, "sequence": 1}, context)
