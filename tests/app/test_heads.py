"""Heads are read as people write them, and refused by name."""

import pytest

from attnscope.app.heads import read_heads, write_heads
from attnscope.kernels.errors import InvalidCall


@pytest.mark.parametrize(
    ("text", "heads"),
    [
        ("", ()),
        ("2.5", ((2, 5),)),
        ("3.1, 2.5", ((2, 5), (3, 1))),
        (" 2.5;2.5 0.10\n", ((0, 10), (2, 5))),
    ],
)
def test_heads_are_read_in_order_and_once(text: str, heads) -> None:
    assert read_heads(text) == heads
    assert read_heads(write_heads(heads)) == heads


@pytest.mark.parametrize(
    "text", ["2", "2.", "2.5.1", "-1.2", "a.b", "2.5 <b>", "1.99999", "\u0663.\u0661"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidCall, match="is no head"):
        read_heads(text)


def test_too_many_heads_are_refused() -> None:
    with pytest.raises(InvalidCall, match="5000 heads are too many"):
        read_heads("1.1 " * 5000)
