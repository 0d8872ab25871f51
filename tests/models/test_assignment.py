"""Patterns by layer and head, and their JSON."""

import json

import numpy as np
import pytest

from attnscope.kernels.errors import InvalidCall, RecordUnreadable, UnknownPattern
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.assignment import Assignment, named_patterns, patterns_of

WINDOW = pattern("sliding_window", window=3)
SLASHES = pattern("vertical_slash", columns=(0, 3), diagonals=(0, 1), causal=True)
BLOCKS = pattern("block_list", block=4, rows=((0,), (0, 1)))
GIVEN = Assignment(
    model="demo",
    revision=None,
    layers={0: (WINDOW, None, SLASHES), 3: (BLOCKS, WINDOW, WINDOW)},
)


def test_json_gives_it_back() -> None:
    assert Assignment.from_json(GIVEN.to_json()) == GIVEN
    read = json.loads(GIVEN.to_json())
    assert read["layers"] == {"0": [0, None, 1], "3": [2, 0, 0]}
    assert read["patterns"][1] == {
        "key": "vertical_slash",
        "causal": True,
        "parameters": {"columns": [0, 3], "diagonals": [0, 1]},
    }


def test_patterns_by_layer() -> None:
    assert patterns_of(GIVEN.layers, 3) == (BLOCKS, WINDOW, WINDOW)
    assert patterns_of(GIVEN.layers, 1) is None
    assert patterns_of(WINDOW, 7) == WINDOW
    assert patterns_of(None, 0) is None
    assert list(named_patterns(GIVEN.layers)) == [WINDOW, SLASHES, BLOCKS]
    assert list(named_patterns({1: WINDOW, 2: None})) == [WINDOW]
    assert list(named_patterns(None)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no assignment"),
        ("[1]", "no assignment"),
        ("{}", "no assignment"),
        ('{"schema": 2}', "version 2; this program reads 1"),
        (
            '{"schema": 1, "model": "m", "revision": null, "patterns": [], "layers": {"0": [0]}}',
            "no",
        ),
        (
            '{"schema": 1, "model": "m", "revision": null, "patterns": [], "layers": {"a": []}}',
            "no",
        ),
        ('{"schema": 1, "model": "m", "revision": null, "patterns": [7], "layers": {}}', "no"),
    ],
)
def test_what_is_no_assignment_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecordUnreadable, match=message):
        Assignment.from_json(text)


def test_a_pattern_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(UnknownPattern, match="window must be"):
        Assignment.from_json(GIVEN.to_json().replace('"window": 3', '"window": 0'))


def test_a_matrix_has_no_json() -> None:
    drawn = pattern("matrix", matrix=np.ones((3, 3), bool))
    with pytest.raises(InvalidCall, match=r"matrix \(3 by 3\) has no form in JSON"):
        Assignment(model="demo", revision=None, layers={0: (drawn,)}).to_json()
