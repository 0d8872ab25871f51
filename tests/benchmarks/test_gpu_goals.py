"""The goals' table, from records invented so that the answer is known."""

import json
from typing import Any

import pytest

from benchmarks.gpu import goals
from benchmarks.gpu.goals import GOALS, goals_table, shown

Record = dict[str, Any]


def record(found: Record | None = None, *, call: Record | None = None, **others: Any) -> Record:
    usual = {
        "dtype": "bfloat16",
        "head_dim": 128,
        "value_dim": 128,
        "batch": 1,
        "kv_heads": 8,
        "query_length": 16_384,
        "key_length": 16_384,
        "pattern": {"key": "full"},
    }
    return {"call": usual | (call or {}), "backends": found or {}, **others}


def timed(median: float, **others: Any) -> Record:
    return {"right": True, "ratio": 1.0, "ms": {"median": median}, **others}


def row(name: str, sections: dict[str, list[Record]]) -> Record:
    (found,) = (each for each in goals_table(sections) if each["name"].startswith(name))
    return found


def test_without_records_nothing_is_measured_and_every_goal_is_listed() -> None:
    table = goals_table({})
    assert [each["name"] for each in table] == [goal.name for goal in GOALS]
    assert {each["reached"] for each in table} == {"not measured"}
    assert {name[:2] for name in (each["name"] for each in table)} == {
        *("K1", "K2", "K3", "K4", "K5"),
        "ca",
    }
    assert json.loads(json.dumps(table)) == table
    assert len(shown(table).splitlines()) == len(table) + 1


@pytest.mark.parametrize(
    ("ratios", "reached", "above"),
    [((0.5, 2.0), "yes", True), ((0.81, 0.99), "no", True), ((0.5, 0.9), "no", False)],
)
def test_ratios_are_joined_by_their_geometric_mean(ratios, reached, above) -> None:
    found = row("K1 forward: speed", {"forward": [record(speed_ratio=ratio) for ratio in ratios]})
    assert found["found"] == pytest.approx((ratios[0] * ratios[1]) ** 0.5)
    assert (found["reached"], found["above_floor"]) == (reached, above)
    assert found["calls"] == "2 of 2"


def test_what_was_measured_in_part_is_not_judged() -> None:
    records = [record(speed_ratio=1.2), record(not_run="out of time")]
    found = row("K1 forward: speed", {"forward": records})
    assert found["found"] == pytest.approx(1.2)
    assert (found["reached"], found["calls"]) == ("not measured", "1 of 2")


def test_a_toy_and_a_summary_tell_nothing_of_speed() -> None:
    toy = record(call={"dtype": "float16"}, speed_ratio=3.0)
    summary = {"name": "forward, in all", "speed_ratio_geomean": 3.0}
    assert row("K1 forward: speed", {"forward": [toy, summary]})["calls"] == "0 of 0"


def test_the_share_of_the_matmul_is_that_of_our_fastest_right_answer_at_16k() -> None:
    backends = {
        "triton": timed(2.0, of_matmul=0.7),
        "triton_other": timed(1.0, of_matmul=0.81),
        "triton_wrong": {"right": False, "reason": "NaN"},
        "sdpa_cudnn": timed(0.5, of_matmul=0.9),
    }
    records = [
        record(backends),
        record({"triton": timed(1, of_matmul=0.1)}, call={"query_length": 8}),
    ]
    found = row("K1 forward: share of the matmul, head_dim 128 full", {"forward": records})
    assert (found["found"], found["reached"]) == (pytest.approx(0.81), "yes")
    causal = row("K1 forward: share of the matmul, head_dim 128 causal", {"forward": records})
    assert causal["reached"] == "not measured"


def test_one_gradient_that_differs_is_not_repeatable() -> None:
    records = [record(repeatable=True), record(repeatable=False)]
    assert row("K1 backward: gradients", {"backward": records})["reached"] == "no"
    assert row("K1 backward: gradients", {"backward": records[:1]})["reached"] == "yes"


def test_decoding_is_held_to_the_copy_only_where_it_reads_much() -> None:
    # 2 · 8 heads · 256 wide · 2 bytes a key: 32 768 keys are 256 MiB in eight sequences.
    much = {"query_length": 1, "key_length": 32_768, "batch": 2, "kv_heads": 8}
    few = much | {"key_length": 32_767}
    records = [
        record({"triton_decode": timed(1, of_copy=0.9)}, call=much, speed_ratio=2.0),
        record({"triton_decode": timed(1, of_copy=0.2)}, call=few, speed_ratio=1.0),
    ]
    assert row("K2 decode: share", {"decode": records})["found"] == pytest.approx(0.9)
    time = row("K2 decode: time", {"decode": records})
    assert time["found"] == pytest.approx(0.5**0.5)
    assert time["reached"] == "no"


def test_sparse_patterns_are_held_to_causal_attention_and_to_flex() -> None:
    window = {"pattern": {"key": "sliding_window", "window": 1024}}
    records = [
        record({"triton": timed(9, efficiency=1.0)}, call={"pattern": {"key": "causal"}}),
        record({"triton": timed(1, efficiency=0.9), "flex": timed(1.5)}, call=window),
        record({"triton": timed(2, efficiency=0.8), "flex": timed(2.4)}, call=window),
    ]
    sections = {"sparse": records}
    assert row("K3 sparse: efficiency", sections)["found"] == pytest.approx(0.72**0.5)
    against = row("K3 sparse: speed", sections)
    assert against["found"] == pytest.approx(1.8**0.5)
    assert against["reached"] == "yes"
    assert row("K3 sparse: efficiency", {})["reached"] == "not measured"


def test_maps_by_what_their_section_says() -> None:
    with_map = {"triton forward and map": timed(1)}
    records = [
        record(with_map, overhead=1.9, speed_ratio=60.0),
        record(with_map, call={"key_length": 32_768}, overhead=1.5),
        record(with_map, call={"key_length": 131_072}, overhead=1.8),
    ]
    for name in ("K4 maps: time", "K4 maps: speed", "K4 maps: 131 072"):
        assert row(name, {"maps": records})["reached"] == "yes"
    records[2]["backends"]["triton forward and map"]["right"] = False
    assert row("K4 maps: 131 072", {"maps": records})["reached"] == "no"


def test_errors_by_their_mean_and_by_the_worst_of_ours() -> None:
    records = [
        record({"triton": timed(1, ratio=0.5), "sdpa_math": timed(1, ratio=9.0)}),
        record({"triton": timed(1, ratio=1.9), "triton_decode": timed(1, ratio=2.0)}),
    ]
    mean = row("K5 errors: over PyTorch's, geometric", {"errors": records})
    assert (mean["found"], mean["reached"]) == (pytest.approx(1.0), "yes")
    assert row("K5 errors: over PyTorch's, the worst", {"errors": records})["reached"] == "yes"
    failed = record({"triton": {"right": False, "reason": "OutOfMemoryError: 99 GiB"}})
    worst = row("K5 errors: over PyTorch's, the worst", {"errors": [*records, failed]})
    assert worst["reached"] == "no"
    assert worst["found"] is None, "infinity is no number of a record"


def test_names_fit_the_table() -> None:
    assert all(len(goal.name) <= goals.NAME_WIDTH for goal in GOALS)


def test_the_calculator_is_held_to_its_worst_error_on_the_device() -> None:
    records = [record(worst_error_percent=error) for error in (0.4, 5.5)]
    found = row("calculator", {"memory": records})
    assert (found["found"], found["reached"]) == (5.5, "no")
    toy = [record(worst_error_percent=0.4, call={"dtype": "float32"})]
    assert row("calculator", {"memory": toy})["reached"] == "not measured"
