"""What is said of heads that are taken out."""

from typing import Any

import pytest

from attnscope.app.words.ablation import (
    ablated_rows,
    ablated_verdict,
    moved,
    named,
    spared,
    swept_verdict,
    token_words,
)

SWEPT: dict[str, Any] = {
    "scored": 3,
    "loss": 1.0,
    "heads": [[0, 0, 1.5, 0.2], [0, 1, 0.9, 0.1]],
    "layers": [[2.0, 0.5]],
    "order": [[0, 1], [0, 0]],
    "curve": [[0, 1.0, 0.0], [1, 0.9, 0.1], [2, 2.0, 0.5]],
}
ABLATED: dict[str, Any] = {
    "hidden": False,
    "loss": [1.0, 2.0],
    "perplexity": [2.71828, 7.38906],
    "losses": [[1.0, 0.5, 1.5, 1.0], [2.0, 0.4, 4.6, 1.0]],
    "kl": [0.2, 0.4],
    "next": [
        [["a", 0.6, 0.1, 2.0, 1.0], ["b", 0.4, 0.9, 1.0, 2.0]],
        [["a", 0.9, 0.8, 2.0, 1.0], ["c", 0.1, 0.2, 1.0, 2.0]],
    ],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [(1.25, "rises by 1.250"), (-0.5, "falls by 0.500"), (4e-4, "does not move")],
)
def test_a_change_is_said_in_words(change: float, words: str) -> None:
    assert moved(change) == words


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ([[2, 5]], "head 2.5"),
        ([[2, 5], [3, 1]], "heads 2.5 and 3.1"),
        ([[1, 0], [2, 5], [3, 1]], "heads 1.0, 2.5 and 3.1"),
        ([[0, head] for head in range(8)], "8 heads"),
    ],
)
def test_a_few_heads_are_named(heads, words: str) -> None:
    assert named(heads) == words


@pytest.mark.parametrize(
    ("heads", "way", "words"),
    [
        ([[2, 5]], "zero", "Head 2.5 put to zero: the loss rises by 1.000, from 1.000 to 2.000"),
        ([[2, 5], [3, 1]], "mean", "Heads 2.5 and 3.1 replaced by their means over the text:"),
        ([[2, 5]], "restrict", "Head 2.5 held to “j > 0”: the loss"),
    ],
)
def test_the_verdict_says_what_was_done(heads, way: str, words: str) -> None:
    said = ablated_verdict(ABLATED, heads, way, "j > 0")
    assert said.startswith(words)
    assert said.endswith("nats a token (perplexity 2.72 to 7.39).")
    assert "nats a hidden token" in ablated_verdict({**ABLATED, "hidden": True}, heads, way)


@pytest.mark.parametrize(
    ("rise", "count", "words"), [(0.0, 1, "1 of the 2"), (1.0, 2, "all"), (-0.2, 0, "none")]
)
def test_the_sweep_says_how_many_can_go(rise: float, count: int, words: str) -> None:
    assert spared(SWEPT, rise) == count
    said = swept_verdict(SWEPT, rise)
    assert said.startswith("Head 0.0 is missed most: without it the loss rises by 0.500 nats")
    assert f"Least missed first, {words} can go" in said


def test_the_rows_count_tokens_and_tops() -> None:
    rows = {name: (before, after) for name, before, after in ablated_rows(ABLATED)}
    assert rows["loss, nats a token"] == ("1.0000", "2.0000")
    assert rows["KL, mean of the positions"][1] == "0.3 nats"
    assert rows["same likeliest token"][1] == "1 of 2"
    assert rows["tokens predicted worse"][1] == "2 of 4"
    assert rows["tokens predicted better"][1] == "1 of 4"


@pytest.mark.parametrize(
    ("token", "words"),
    [(" silver", "silver"), ("\n\n", "↵↵"), ("  ", "␣␣"), ("a" * 40, "a" * 23 + "…")],
)
def test_a_token_is_seen_in_a_sentence(token: str, words: str) -> None:
    assert token_words(token) == words
