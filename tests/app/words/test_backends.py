from dataclasses import replace

import pytest

from attnscope.app.words.backends import HEADER, described, provenance, row_of
from tests.app.checked import EAGER, FACTS, FLASH, LINEAR, REFUSED, RESULTS, TOKENS, WRONG

ROWS = {each["name"]: each for each in described(RESULTS, TOKENS)}


def column(name: str, of: str) -> str:
    return ROWS[of]["row"][HEADER.index(name)]


def test_a_right_backend_in_a_row():
    assert EAGER.timing is not None
    assert row_of(EAGER, EAGER) == (
        *("eager", "exact", "0.1", "4.0e-07", "2.0e-05", "100\u202f%"),
        *("200\u202fms", "200\u202fms - 200\u202fms", "1.00\N{MULTIPLICATION SIGN}"),
        *("100\u202fB", "dense", ""),
    )


def test_what_a_reader_of_the_figures_must_know():
    assert ROWS["sdpa_flash"]["fallback"] == "sdpa_flash was asked for, and math ran"
    assert column("to know", "sdpa_flash").startswith("sdpa_flash was asked for, and math ran; ")
    assert "the middle half of the runs spans" in ROWS["sdpa_flash"]["unsettled"]
    assert column("speed-up", "sdpa_flash") == "1.00\N{MULTIPLICATION SIGN}"
    assert ROWS["sdpa_flash"]["speed_up"] == pytest.approx(1.0)


def test_a_refusal_keeps_its_reason_and_remedy():
    refused = ROWS["triton"]
    assert (refused["verdict"], refused["worst"], refused["heads"]) == ("refused", None, [])
    assert column("to know", "triton") == "Triton flash: needs <a> GPU. Use tiled."
    assert set(refused["row"][2:-1]) == {"-"}


def test_a_wrong_backend_points_at_the_head_whose_cause_is_known():
    worst = ROWS["tiled"]["worst"]
    assert (worst["layer"], worst["head"], worst["key"]) == (1, 0, 4)
    assert worst["cell"] == {
        "sequence": 0,
        "query": 3,
        "channel": 5,
        "found": 0.5,
        "right": 0.25,
        "token": "<b>four</b>",
    }
    assert worst["key_token"] == "five"
    assert worst["queries"] == "2 wrong queries, from 3 to 4"
    assert worst["cause"].startswith("Query 3 sees key 4")
    assert column("error", "tiled") == "NaN or infinite"
    assert column("logits", "tiled") == "NaN or infinite"
    assert [head["wrong"] for head in ROWS["tiled"]["heads"]] == [False, True, True, False]


def test_without_a_cause_it_points_at_the_worst_head():
    (told,) = described([replace(WRONG, cause=None)], TOKENS)
    assert (told["worst"]["layer"], told["worst"]["head"]) == (0, 1)
    assert told["worst"]["cell"]["found"] is None
    assert told["worst"]["cause"] == ""


def test_what_approximates_is_never_wrong():
    linear = ROWS["linear"]
    assert linear["verdict"] == "approximates"
    assert linear["worst"]["cell"] is linear["worst"]["allowed"] is None
    assert not any(head["wrong"] for head in linear["heads"])


def test_without_the_baseline_there_is_no_speed_up():
    (told,) = described([FLASH], TOKENS)
    assert told["speed_up"] is None
    assert row_of(LINEAR, EAGER)[HEADER.index("speed-up")] == "-"
    assert row_of(REFUSED, None)[HEADER.index("speed-up")] == "-"


def test_where_figures_come_from_is_one_line():
    words = provenance(FACTS)
    for part in ("model demo", "float32", "6 tokens", "two cores", "torch 2.13.0", "2026-11-27"):
        assert part in words
