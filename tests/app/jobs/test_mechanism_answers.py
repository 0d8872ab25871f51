"""The questions of the page Mechanisms, against the patterns, the backends' costs and the calculator."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.mechanism_answers import LENGTHS, MASK_BLOCK, MASK_TOKENS, MECHANISM_ASKS
from attnscope.app.jobs.mechanism_calls import DRAWN, choice, dense_rule
from attnscope.app.jobs.mechanism_folder import MechanismFolder
from attnscope.app.jobs.mechanism_work import asked_at, measure_mechanism
from attnscope.app.jobs.work import WORK
from attnscope.app.mechanisms import Mechanism, catalogue, mechanism
from attnscope.app.settings import Settings
from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import backend
from attnscope.profiling.latency import Effort
from attnscope.profiling.mechanism_trials import Heads

CPU = torch.device("cpu")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


def ask(method: str, context: Context, **arguments: object) -> dict:
    return MECHANISM_ASKS[method].answer(dict(arguments), context)


def test_a_mask_is_the_patterns_by_blocks(context: Context) -> None:
    found = ask("mechanism_mask", context, mechanism="sinks-window", values={"window": 32})
    blocks = np.frombuffer(found["body"], np.uint8).reshape(128, 128)
    rule = pattern("sinks_window", window=32, sinks=4)
    key, query = torch.arange(MASK_TOKENS)[None], torch.arange(MASK_TOKENS)[:, None]
    seen = rule.visible(query, key).numpy().reshape(128, MASK_BLOCK, 128, MASK_BLOCK)
    assert np.array_equal(blocks == 2, seen.all((1, 3)))
    assert np.array_equal(blocks > 0, seen.any((1, 3)))
    assert found["header"]["kept"] == seen.sum()


@pytest.mark.parametrize("card", [c for c in catalogue() if c.backends], ids=lambda card: card.key)
def test_calls_of_a_mechanism_and_of_dense_attention_are_over_the_same_tokens(card) -> None:
    chosen = choice(card, {}, causal=False)
    own, dense = (make(512, DRAWN) for make in (chosen.call, chosen.dense))
    assert own.query_length == dense.query_length == (card.query_length or 512)
    assert own.key_length == dense.key_length == 512
    assert dense.kv_heads == dense.query_heads == own.kv_heads * card.group_size
    assert backend("eager").refuses(dense, CPU) is None
    assert dense.pattern.key in ("full", "causal")
    assert own.kept_pairs <= dense.kept_pairs


def test_what_a_pattern_leaves_out_is_of_the_causal_or_of_the_full_map() -> None:
    assert dense_rule(pattern("chunked", chunk=8), 64).key == "causal"
    assert dense_rule(pattern("local", window=8), 64).key == "full"
    assert dense_rule(pattern("local", window=8, causal=True), 64).key == "causal"


def test_the_curves_are_the_costs_that_the_backends_declare(context: Context) -> None:
    found = ask("mechanism_costs", context, mechanism="sliding-window", values={"window": 128})
    dense, own = found["lines"][:2]
    assert (dense["backend"], own["backend"]) == ("eager", "triton")
    chosen = choice(mechanism("sliding-window"), {"window": 128}, causal=False)
    for at, length in enumerate(LENGTHS):
        for line, call in ((dense, chosen.dense(length, DRAWN)), (own, chosen.call(length, DRAWN))):
            cost = backend(line["backend"]).cost(call)
            assert line["memory"][at] == cost.workspace_bytes
            assert line["flops"][at] == cost.flops
    assert dense["memory"][-1] == pytest.approx(4 * dense["memory"][-2], rel=0.01)
    assert own["memory"][-1] == 2 * own["memory"][-2]
    assert found["cache"]["model"] == "mistral-7b"


def test_what_does_not_run_here_is_told(context: Context) -> None:
    reasons = ask("mechanisms_here", context)["reasons"]
    assert set(reasons) == {card.key for card in catalogue()}
    assert reasons["tiled"] == reasons["sinks-window"] == reasons["rope"] == ""
    assert "GPU" in reasons["triton-flash"]
    assert "or use sdpa_flash" in reasons["flash-packages"]


@pytest.mark.parametrize("key", [card.key for card in catalogue() if card.figure])
def test_every_figure_has_its_numbers(key: str, context: Context) -> None:
    found = ask("mechanism_picture", context, mechanism=key)
    assert found["figure"] == mechanism(key).figure
    assert len(found) > 1


def test_an_approximation_is_judged_on_the_demo_and_its_loss_beside(context: Context) -> None:
    found = ask("mechanism_error", context, mechanism="linear", values={}, causal=False)
    assert found["tokens"] == 1024
    assert found["relative"] > 0.1
    assert found["losses"]["own"] > found["losses"]["dense"]
    again = ask("mechanism_error", context, mechanism="linear", values={}, causal=False)
    assert again == found


def test_a_measurement_is_made_of_each_call_and_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work.LENGTHS", {"cpu": (32, 64)})
    quick = Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work._EFFORT", quick)
    asked = {"mechanism": "sinks-window", "values": {"window": 16}, "causal": False}
    record = WORK["mechanism"](asked, context)
    names = ["dense", "mechanism", "everything"]
    assert [(c["name"], c["length"]) for c in record["cells"]] == [
        (name, length) for length in (32, 64) for name in names
    ]
    assert all(cell["median_s"] > 0 and cell["runs"] >= 2 for cell in record["cells"])
    kept = ask("mechanism_measured", context, mechanism="sinks-window")["records"]
    assert kept[-1]["cells"] == record["cells"]
    assert kept[-1]["values"] == {"window": 16}


def test_dense_attention_is_measured_alone_and_shared_heads_beside_own() -> None:
    dense = asked_at(choice(mechanism("dense"), {}, causal=False), 64, CPU)
    assert list(dense) == ["dense"]
    shared = asked_at(choice(mechanism("grouped-query"), {}, causal=False), 64, CPU)
    assert shared["dense"][1].kv_heads == 8
    assert shared["mechanism"][1].kv_heads == 2


def test_a_measurement_is_cancelled_between_two_runs(context: Context) -> None:
    context.stop.set()
    with pytest.raises(JobCancelled):
        measure_mechanism({"mechanism": "tiled", "values": {}, "causal": False}, context)
    assert ask("mechanism_measured", context, mechanism="tiled")["records"] == []


@pytest.mark.parametrize(
    "card",
    [card for card in catalogue() if card.timed is not None and not card.trains],
    ids=lambda card: card.key,
)
def test_what_is_no_call_of_a_backend_is_measured_beside_dense_attention(
    card: Mechanism, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work.LENGTHS", {"cpu": (32,)})
    quick = Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work._EFFORT", quick)
    record = measure_mechanism({"mechanism": card.key, "values": {}, "causal": False}, context)
    assert [cell["name"] for cell in record["cells"]][:2] == ["dense", "mechanism"]
    assert all(cell["runs"] >= 2 and not cell["failure"] for cell in record["cells"])
    assert ask("mechanisms_here", context)["reasons"][card.key] == ""


def test_the_cache_of_latents_is_what_the_calculator_says_of_a_layer(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work.LENGTHS", {"cpu": (32,)})
    quick = Effort(runs=2, seconds=0.0, warmup_runs=1, warmup_seconds=0.0)
    monkeypatch.setattr("attnscope.app.jobs.mechanism_work._EFFORT", quick)
    cache = WORK["mechanism"]({"mechanism": "latent", "values": {}, "causal": False}, context)[
        "cache"
    ]
    assert cache["held"] == cache["calculated"] == 32 * (512 + 64) * 4
    assert cache["expanded"] == 32 * 8 * (128 + 64 + 128) * 4


def test_a_rule_of_the_visitors_own_is_drawn_and_timed(context: Context) -> None:
    asked = {"mechanism": "any-mask", "values": {"text": "j <= i and i % 2 == j % 2"}}
    assert ask("mechanism_mask", context, **asked)["header"]["kept"] == 256 * 257
    chosen = choice(mechanism("any-mask"), asked["values"], causal=False)
    calls = asked_at(chosen, 64, CPU)
    assert list(calls) == ["dense", "mechanism", "compiled", "everything"]
    runner, own = calls["mechanism"]
    assert (runner.name, calls["compiled"][0].name) == ("tiled", "flex")
    assert own.pattern.title == "rule (j <= i and i % 2 == j % 2)"


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = MechanismFolder(tmp_path)
    folder.add("tiled", {"number": 1})
    with (tmp_path / "mechanisms" / "tiled.jsonl").open("a") as file:
        file.write('{"number": ')
    assert folder.records("tiled") == [{"number": 1}]
    with pytest.raises(InvalidCall):
        folder.records("../secrets")


def test_the_heads_drawn_are_those_of_a_layer_of_llama() -> None:
    assert Heads(heads=32, head_dim=128, dtype="bfloat16") == DRAWN
