"""Patterns tried on captures in the worker, and what is drawn of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from attnscope.app.jobs import answers, sparsity_work
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.work import WORK
from attnscope.app.kept.matrices import KeptMatrices
from attnscope.app.settings import Settings
from attnscope.kernels.errors import AttnscopeError, CaptureMissing, JobCancelled, JobMissing
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.assignment import Assignment
from attnscope.models.best_patterns import best_patterns
from attnscope.models.sparsity import pattern_effects
from tests.app.jobs.captures import DIM, KV_HEADS, made

WINDOW = {"key": "sliding_window", "causal": False, "parameters": {"window": 4}}
STRIDED = {"key": "strided", "causal": False, "parameters": {"stride": 3}}


@pytest.fixture(scope="module")
def capture():
    bare = made()
    torch.manual_seed(0)
    length = bare.layers[0].q_BHQD.shape[2]
    layers = tuple(
        replace(layer, v_BGKD=torch.randn(2, KV_HEADS, length, DIM)) for layer in bare.layers
    )
    return replace(bare, layers=layers)


@pytest.fixture
def context(tmp_path, capture):
    context = Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())
    answers.shelf(context).add("c" * 32, capture)
    return context


def tried(context, *patterns, **changed):
    asked = {"capture": "c" * 32, "sequence": 0, "patterns": list(patterns), **changed}
    return json.loads(json.dumps(WORK["sparsity_effects"](asked, context)))


@pytest.mark.parametrize("sequence", [0, 1])
def test_every_pattern_is_tried_on_every_head(context, capture, sequence):
    found = tried(context, WINDOW, STRIDED, sequence=sequence)
    meant = pattern_effects(
        capture,
        [pattern("sliding_window", window=4), pattern("strided", stride=3)],
        sequence=sequence,
    )
    assert found["layers"] == list(meant.layers) == [0, 2]
    for at, each in enumerate(found["patterns"]):
        assert np.allclose(each["mass"], meant.mass_PLH[at], atol=1e-4)
        assert np.allclose(each["error"], meant.error_PLH[at], rtol=1e-4)
        assert each["kept"] == pytest.approx(meant.kept_PL[at].mean())
        assert each["empty"] == meant.empty_PL[at].max()
    assert found["patterns"][0]["title"] == "sliding window (window 4)"
    thumbnail = np.array(found["patterns"][0]["thumbnail"])
    assert thumbnail.shape[0] <= 32
    assert not np.triu(thumbnail, 1).any()


def test_what_was_tried_before_is_not_tried_again(context, monkeypatch):
    first = tried(context, WINDOW)
    asked = []

    def counted(capture, patterns, **options):
        asked.extend(patterns)
        return pattern_effects(capture, patterns, **options)

    monkeypatch.setattr(sparsity_work, "pattern_effects", counted)
    both = tried(context, STRIDED, WINDOW)
    assert [one.key for one in asked] == ["strided"]
    assert both["patterns"][1] == first["patterns"][0]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({**WINDOW, "parameters": {"window": 400}}, "400"),
        ({"key": "axial", "causal": False, "parameters": {"height": 2, "width": 2}}, "4 places"),
        ({"key": "matrix", "causal": False, "parameters": {"matrix": "0" * 32}}, "not kept here"),
        ({"key": "rule", "causal": False, "parameters": {"text": "i < n"}}, "write a number"),
        ({"key": "rule", "causal": False, "parameters": {"text": "j > i"}}, "no "),
    ],
)
def test_a_pattern_that_cannot_be_says_so_and_the_others_are_tried(context, described, said):
    found = tried(context, described, WINDOW)
    assert said in found["patterns"][0]["refusal"]
    assert "mass" in found["patterns"][1]
    alone = tried(context, described)
    assert alone["patterns"] == found["patterns"][:1]


def test_a_matrix_is_found_by_its_fingerprint(context):
    drawn = np.tril(np.ones((40, 40), bool))
    name = KeptMatrices(context.settings.matrices_folder).keep(drawn)
    asked = {"key": "matrix", "causal": False, "parameters": {"matrix": name}}
    assert np.allclose(tried(context, asked)["patterns"][0]["mass"], 1, atol=1e-5)


def test_a_capture_without_values_says_what_to_do(context):
    answers.shelf(context).add("d" * 32, made())
    with pytest.raises(CaptureMissing, match="holds no values"):
        tried(context, WINDOW, capture="d" * 32)


def test_it_ends_when_it_is_cancelled(context):
    context.stop.set()
    with pytest.raises(JobCancelled):
        tried(context, WINDOW)


def ask_mask(context, described=WINDOW, **changed):
    asked = {"pattern": described, "length": 40, "block": 16, "zoom": None, **changed}
    return answers.ASKS["sparsity_mask"].answer(asked, context)


def test_a_mask_is_drawn_and_counted(context):
    found = ask_mask(context)
    header = found["header"]
    drawn = np.frombuffer(found["body"], np.uint8).reshape(header["rows"], header["cols"])
    meant = [[2 * (i - 4 < j <= i) for j in range(40)] for i in range(40)]
    assert drawn.tolist() == meant
    assert header["pairs"] == np.count_nonzero(drawn)
    assert header["title"] == "sliding window (window 4)"
    part = ask_mask(context, zoom=[8, 16, 0, 40])["header"]
    assert (part["q0"], part["q1"], part["k0"], part["k1"]) == (8, 16, 0, 40)


@pytest.mark.parametrize("length", [0, 131_073])
def test_a_mask_of_no_such_length_is_refused(context, length):
    with pytest.raises(ValueError, match="1 to 131072 tokens"):
        ask_mask(context, length=length)


def ask(context, method, **arguments):
    return answers.ASKS[method].answer({"capture": "c" * 32, **arguments}, context)


@pytest.mark.parametrize(("kind", "value"), [("threshold", 0.05), ("top_k", 3), ("mass", 0.9)])
def test_a_heads_own_mask_is_read_off_its_weights(context, capture, kind, value):
    found = ask(context, "sparsity_empirical", sequence=0, layer=1, head=2, kind=kind, value=value)
    weights = capture.tile(2, 2).astype(np.float64)
    ordered = np.sort(weights, axis=1)[:, ::-1]
    if kind == "threshold":
        kept = (weights >= value).sum(1)
    elif kind == "top_k":
        kept = np.minimum(np.arange(len(weights)) + 1, value)
    else:
        kept = (ordered.cumsum(1) < value).sum(1) + 1
    shares = np.frombuffer(found["body"], "<f4").reshape(40, 40)
    assert np.array_equal(np.nan_to_num(shares).sum(1), kept)
    assert np.isnan(shares[0, 1:]).all()
    header = found["header"]
    assert header["kept"] == pytest.approx(kept.sum() / (40 * 41 / 2))
    assert header["keys"][1] == kept.max()


def test_patterns_by_head_go_round_a_file(context):
    asked = {"patterns": [WINDOW, STRIDED], "heads": [[0, 1, None, 0], [1, 1, 1, 1]]}
    made_of = ask(context, "sparsity_assignment", **asked)
    counts = dict(made_of["counts"])
    assert counts == {"strided": 5, "sliding window": 2, "the model's own rule": 1}
    assert made_of["counts"][0][0] == "strided"
    read = ask(context, "sparsity_assignment_read", json=made_of["json"])
    assert read == made_of
    assert json.loads(read["json"])["layers"] == {"0": [0, 1, None, 0], "2": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no assignment of patterns"),
        ("[1, 2", "no assignment of patterns"),
        ('{"schema": 99}', "of version 99"),
        (
            '{"schema": 1, "model": "m", "revision": null, "patterns": [], "layers": {"0": [null]}}',
            "gives layer 0 1 heads, and here it has 4",
        ),
    ],
)
def test_an_assignment_that_is_none_or_of_another_model_is_refused(context, text, said):
    with pytest.raises(AttnscopeError, match=said):
        ask(context, "sparsity_assignment_read", json=text)


def test_what_is_fitted_to_every_head_is_told_head_by_head(context, capture):
    asked = {"capture": "c" * 32, "sequence": 0, "budget": 0.5}
    assert WORK["sparsity_best"](asked, context) == asked
    found = ask(context, "sparsity_fitted", sequence=0, budget=0.5, layer=1, head=3)["candidates"]
    meant = best_patterns(capture, 0.5, layers=[2]).of(2, 3)
    assert [each["fitted"] for each in found].count(True) == 3
    assert [each["fitted"] for each in found].count(False) == 1
    assert found[0]["title"] == meant[0].pattern.title
    assert found[0]["mass"] == pytest.approx(meant[0].mass)
    assert max(max(row) for row in found[0]["thumbnail"]) > 0
    by_head = ask(context, "sparsity_assignment", best=asked)
    assert sum(number for _, number in by_head["counts"]) == 8


@pytest.mark.parametrize("kind", ["sinks_window", "vertical_slash", "block_list", "budget"])
def test_the_mask_of_what_is_fitted_is_drawn_and_goes_to_its_head_alone(context, capture, kind):
    asked = {"capture": "c" * 32, "sequence": 0, "budget": 0.5}
    WORK["sparsity_best"](asked, context)
    place = {"sequence": 0, "budget": 0.5, "layer": 1, "head": 3, "kind": kind}
    answer = ask(context, "sparsity_fitted_mask", block=16, zoom=None, **place)
    header = answer["header"]
    drawn = np.frombuffer(answer["body"], np.uint8).reshape(header["rows"], header["cols"])
    of_head = best_patterns(capture, 0.5, layers=[2]).of(2, 3)
    meant = next(
        each
        for each in of_head
        if each.fitted == (kind != "budget") and kind in ("budget", each.pattern.key)
    )
    index = torch.arange(40)
    seen = meant.pattern.visible(index[:, None], index[None]) & (index[:, None] >= index[None])
    assert np.array_equal(drawn > 0, seen.numpy())
    assert header["pairs"] == np.count_nonzero(drawn)
    assert header["title"] == f"{meant.pattern.title}, layer 2, head 3"
    alone = ask(context, "sparsity_assignment", alone={"capture": "c" * 32, **place})
    assert Assignment.from_json(alone["json"]).layers == {2: (None, None, None, meant.pattern)}


def test_a_kind_that_does_not_fit_says_so(context):
    asked = {"capture": "c" * 32, "sequence": 0, "budget": 0.5}
    WORK["sparsity_best"](asked, context)
    place = {"layer": 1, "head": 3, "kind": "axial", "block": 16, "zoom": None}
    with pytest.raises(JobMissing, match="No axial fits this head"):
        ask(context, "sparsity_fitted_mask", **asked, **place)


@pytest.mark.parametrize("run", ["0" * 32, "../../etc/passwd"])
def test_a_run_or_a_fit_that_is_not_kept_says_so(context, run):
    with pytest.raises(JobMissing, match="not kept here any more"):
        ask(context, "sparsity_ran", run=run)
    with pytest.raises(JobMissing, match="not kept here any more"):
        ask(context, "sparsity_fitted", sequence=0, budget=0.25, layer=0, head=0)
