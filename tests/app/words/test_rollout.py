"""What is said of a rollout, in words."""

import pytest

from attnscope.app.words.rollout import listed_note, map_note, stages, verdict

TOKENS = ("The", " cat", "\n", " sat")
FOUND = {
    "token": 3,
    "length": 4,
    "direction": "from",
    "layers": [1, 0],
    "positions": [0, 1, 2, 3],
    "shares": [0.1, 0.3, 0.0, 0.25],
    "elsewhere": [0.0, 0.2, 0.35],
}


def test_where_a_token_came_from_and_what_belongs_to_none() -> None:
    said = verdict(FOUND, TOKENS).replace("\u202f", " ")
    assert said.startswith("Through layers 0 to 1, “sat” 3 came 25 % from itself, ")
    assert "30 % from “cat” 1, 10 % from “The” 0." in said
    assert said.endswith("35 % belongs to no token: sinks took it, or a query saw nothing.")
    whole = {**FOUND, "elsewhere": [0.0, 0.0, 1e-6]}
    assert "no token" not in verdict(whole, TOKENS)


def test_where_a_token_went() -> None:
    found = {**FOUND, "token": 1, "direction": "to", "layers": [0, 1], "elsewhere": None}
    said = verdict(found, TOKENS).replace("\u202f", " ")
    assert "“cat” 1 makes 30 % of itself, and most of the others 25 % of “sat” 3" in said
    assert stages(found) == ["the token", "after layer 0", "after layer 1"]
    assert stages(FOUND) == ["the token", "below layer 1", "below layer 0"]


def test_a_token_alone_names_no_others() -> None:
    found = {**FOUND, "layers": [0], "shares": [0, 0, 0, 1.0], "elsewhere": [0.0, 0.0]}
    assert verdict(found, TOKENS).replace("\u202f", " ") == (
        "Through layer 0, “sat” 3 came 100 % from itself."
    )


@pytest.mark.parametrize(
    ("rows", "said"), [(4, "a cell a pair, exact"), (2, "in 2 by 2 cells: the mean over")]
)
def test_a_map_says_how_exact_it_is(rows: int, said: str) -> None:
    assert said in map_note({"values": [[0.0]] * rows, "length": 4})


def test_a_long_prompt_says_how_many_are_listed() -> None:
    assert listed_note(FOUND) == "every one of 4 tokens"
    assert "the 4 largest of 9 tokens" in listed_note({**FOUND, "length": 9})
