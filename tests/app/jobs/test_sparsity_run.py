"""A run within patterns as JSON; the runs themselves are those of the page's tests."""

import json

import pytest

from attnscope.app.jobs.sparsity_run import described
from attnscope.models.predictions import Change, NextToken
from attnscope.models.sparse_run import HiddenToken, Saving, SparseRun


def run(continuation: Change | None) -> SparseRun:
    text = None if continuation is None else Change(before="the end", after="the end")
    return SparseRun(
        loss=Change(before=1.0, after=1.5),
        scored=3,
        hidden=HiddenToken(position=4, text=" b"),
        next_tokens=(
            NextToken(
                id=1,
                text=" a",
                probability=Change(before=0.5, after=0.25),
                logit=Change(before=2.0, after=1.0),
            ),
        ),
        kl_nats=0.1,
        mean_kl_nats=0.2,
        continuation=continuation,
        text=text,
        saving=Saving(
            pairs=Change(before=10, after=5),
            blocks=Change(before=4, after=2),
            flops=Change(before=100, after=50),
            workspace_bytes=Change(before=8, after=9),
        ),
    )


def test_what_has_two_values_has_that_of_the_model_as_it_is_first() -> None:
    found = json.loads(json.dumps(described(run(Change(before=(1, 2), after=(1, 3))), 2)))
    assert found["loss"] == [1.0, 1.5]
    assert found["hidden"] == [4, " b"]
    assert found["next"] == [[" a", 0.5, 0.25]]
    assert (found["kl"], found["mean_kl"], found["scored"]) == (0.1, 0.2, 3)
    assert found["same_tokens"] == 1
    assert (found["pairs"], found["blocks"]) == ([10, 5], [4, 2])
    assert (found["flops"], found["workspace_bytes"]) == ([100, 50], [8, 9])


@pytest.mark.parametrize(
    ("continuation", "wanted", "ends"),
    [
        (Change(before=(7,), after=(7,)), 24, True),
        (Change(before=(7,), after=(7,)), 1, False),
        (Change(before=(7,), after=(1, 2)), 24, False),
        (None, 0, False),
    ],
)
def test_a_text_that_both_end_at_once_is_told_apart(continuation, wanted: int, ends: bool) -> None:
    found = described(run(continuation), wanted)
    assert found["ends"] == ends
    assert (found["text"] is None) == (continuation is None)
