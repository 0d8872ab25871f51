"""What is said of a grid."""

import pytest

from attnscope.app.words.needle import reach, score_text, verdict
from attnscope.profiling.units import count


def cells(*exact: int) -> list[dict[str, float]]:
    """Two depths at 64, 128 and 256 tokens, so many of four trials exact."""
    places = [(length, depth) for length in (64, 128, 256) for depth in (0, 50)]
    return [
        {"length": length, "depth": depth, "exact": count, "trials": 4}
        for (length, depth), count in zip(places, exact, strict=False)
    ]


@pytest.mark.parametrize(
    ("exact", "found"),
    [((4, 4, 4, 2, 2, 1), 128), ((1, 4, 4, 4, 4, 4), 0), ((2, 2, 2, 2, 2, 2), 256), ((4, 4), 64)],
)
def test_the_reach_is_the_longest_length_before_the_first_failure(exact, found):
    assert reach(cells(*exact)) == found


def test_the_verdict_says_how_it_goes_on():
    assert verdict(cells(4, 4, 1, 3, 0, 0)) == (
        "Finds it at every depth up to 64 tokens.",
        "At 128: 4 of 8 exact, found at 50 %. At 256: 0 of 8 exact.",
    )
    first, _ = verdict(cells(0, 0, 4, 4))
    assert first.startswith("Does not find it at every depth")


def test_a_score_of_nothing_has_no_minus():
    assert score_text({"log_probability": -0.01}, "log_probability") == "0.0"
    assert [score_text({"rank": rank}, "rank") for rank in (1.0, 40.25, 1234.5)] == [
        "1",
        "40.2",
        count(1234),
    ]
