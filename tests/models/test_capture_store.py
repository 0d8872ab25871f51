"""A capture on disk and back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnscope.kernels.errors import CaptureMissing, InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.composed import compose
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.models import capture_store, mask_rules, rule_table
from attnscope.models.capture import Capture, capture
from attnscope.models.loading import LoadedModel

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabc", "hello"]
_TENSORS = ("q_BHQD", "k_BGKD", "lse_BHQ", "value_norm_BGK", "sinks_H", "visible_keys_BK")


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma2", "gpt_oss", "bert", "modernbert"])
def test_a_round_trip_is_equal(tiny_family: Family, family: str, tmp_path: Path) -> None:
    made = capture(tiny_family(family), PROMPTS, backend="tiled", values=family == "gpt2")
    read = Capture.load(made.save(tmp_path / "one"))
    facts = ("tokens", "token_ids", "words", "texts", "spans", "title", "next_tokens", "created")
    for fact in facts:
        assert getattr(read, fact) == getattr(made, fact)
    for ours, theirs in zip(made.layers, read.layers, strict=True):
        for name in ("layer", "name", "backend", "patterns", "query_offset", "scale", "softcap"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in (*_TENSORS, "v_BGKD"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert one is other or torch.equal(one, other)  # pyright: ignore[reportArgumentType]
        assert (made.tile(ours.layer, 1, sequence=1) == read.tile(ours.layer, 1, sequence=1)).all()


def test_half_precision_survives(tiny_family: Family, tmp_path: Path) -> None:
    model = tiny_family("llama")
    model.model.to(dtype=torch.bfloat16)  # pyright: ignore[reportCallIssue]
    model.memo.clear()
    try:
        made = capture(model, PROMPTS)
    finally:
        model.model.to(dtype=torch.float32)  # pyright: ignore[reportCallIssue]
        model.memo.clear()
    read = Capture.load(made.save(tmp_path))
    assert read.layers[0].q_BHQD.dtype == torch.bfloat16
    assert torch.equal(read.layers[0].q_BHQD, made.layers[0].q_BHQD)


def test_saving_again_replaces(tiny_family: Family, tmp_path: Path) -> None:
    capture(tiny_family("gpt2"), "first").save(tmp_path)
    capture(tiny_family("gpt2"), "second").save(tmp_path)
    assert Capture.load(tmp_path).texts == ("second",)


def test_a_rule_of_its_own_is_saved_as_a_table(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that its chunks are not recognised as documents.
    monkeypatch.setattr(mask_rules, "_MOST_DOCUMENTS", 0)
    made = capture(tiny_family("llama4_text"), ["abcdefgh", "abcde"], backend="tiled")
    read = Capture.load(made.save(tmp_path))
    assert read.layers[0].pattern.title == made.layers[0].pattern.title
    for sequence in (0, 1):
        tiles = made.tile(0, 1, sequence=sequence), read.tile(0, 1, sequence=sequence)
        assert (tiles[0] == tiles[1]).all()


def test_a_rule_too_large_to_tabulate_is_refused(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_rules, "_MOST_DOCUMENTS", 0)
    made = capture(tiny_family("llama4_text"), "abcdefgh")
    monkeypatch.setattr(rule_table, "_MOST_PAIRS", 10)
    with pytest.raises(InvalidCall, match="too large to save"):
        made.save(tmp_path)
    with pytest.raises(CaptureMissing):
        Capture.load(tmp_path)


def test_a_function_has_no_form_in_json() -> None:
    rule = Predicate(function=lambda q, k: q >= k, label="own")
    for one in (rule, compose(pattern("local", window=6), rule)):
        with pytest.raises(InvalidCall, match="function of the model"):
            capture_store.pattern_to_json(one)


@pytest.mark.parametrize(
    "one",
    [
        pattern("full"),
        pattern("causal"),
        pattern("sliding_window", window=7),
        pattern("local", window=6),
        pattern("local", window=6, causal=True),
        pattern("sinks_window", window=3, sinks=2),
        pattern("packed", lengths=(3, 5), causal=True),
        pattern("packed", lengths=(3, 5), sliding_window={"window": 2}),
    ],
)
def test_patterns_round_trip_through_json(one: Pattern) -> None:
    described = json.loads(json.dumps(capture_store.pattern_to_json(one)))
    assert capture_store.pattern_from_json(described) == one


@pytest.mark.parametrize("damage", ["missing", "json", "tensors", "version", "layer"])
def test_damaged_captures_say_so(tiny_family: Family, tmp_path: Path, damage: str) -> None:
    capture(tiny_family("gpt2"), "abc").save(tmp_path)
    facts, tensors = tmp_path / "capture.json", tmp_path / "capture.safetensors"
    if damage == "missing":
        facts.unlink()
    elif damage == "json":
        facts.write_text("{")
    elif damage == "tensors":
        tensors.write_bytes(b"abc")
    elif damage == "version":
        facts.write_text(json.dumps(json.loads(facts.read_text()) | {"schema": 99}))
    else:
        described = json.loads(facts.read_text())
        described["layers"][0]["layer"] = 55
        facts.write_text(json.dumps(described))
    with pytest.raises(CaptureMissing):
        Capture.load(tmp_path)
