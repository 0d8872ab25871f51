import json
import math

import numpy as np
import pytest
import torch

from attnscope.app.jobs import answers
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.kept_answers import keep, kept
from attnscope.app.jobs.quantise import Quantised, restore
from attnscope.app.settings import Settings
from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled
from tests.app.jobs.captures import DIM, HEADS, KV_HEADS, made


@pytest.fixture(scope="module")
def capture():
    return made()


@pytest.fixture(scope="module")
def context(tmp_path_factory, capture):
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    context = Context(settings=settings, device="cpu", resources=Resources())
    answers.shelf(context).add("c" * 32, capture)
    return context


def dense(capture, layer=1, head=3, sequence=0):
    """The head's weights in float64, by the definition; NaN where masked."""
    held, (start, end) = capture.layers[layer], capture.spans[sequence]
    q_QD = held.q_BHQD[sequence, head, start:end].double()
    k_KD = held.k_BGKD[sequence, head * KV_HEADS // HEADS, start:end].double()
    scores = (q_QD @ k_KD.T) * DIM**-0.5
    scores = scores.masked_fill(torch.ones(len(q_QD), len(q_QD)).triu(1).bool(), -math.inf)
    weights = scores.softmax(-1)
    return weights.masked_fill(scores == -math.inf, math.nan).numpy()


def ask(name, context, **arguments):
    return answers.ASKS[name].answer({"capture": "c" * 32, **arguments}, context)


def floats(answer):
    header = answer["header"]
    shape = header.get("shape") or (header["rows"], header["cols"])
    return np.frombuffer(answer["body"], "<f4").reshape(shape)


@pytest.mark.parametrize(
    ("sequence", "region"), [(0, {}), (1, {}), (0, {"q0": 5, "q1": 20, "k0": 2, "k1": 9})]
)
def test_near_the_map_is_every_weight(context, capture, sequence, region):
    answer = ask("map", context, layer=2, head=3, sequence=sequence, encoding="f32", **region)

    whole = dense(capture, sequence=sequence)
    q0, q1 = region.get("q0", 0), region.get("q1", len(whole))
    k0, k1 = region.get("k0", 0), region.get("k1", len(whole))
    np.testing.assert_allclose(floats(answer), whole[q0:q1, k0:k1], atol=2e-6)
    header = answer["header"]
    assert (header["exact"], header["sampled"], header["masked"]) == (True, None, "NaN")
    assert (header["q0"], header["q1"], header["k0"], header["k1"]) == (q0, q1, k0, k1)


@pytest.mark.parametrize(
    ("reduce", "oracle"), [("mean", np.nanmean), ("max", np.nanmax), ("sum", np.nansum)]
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:All-NaN")
def test_far_the_map_is_pooled_over_visible_pairs(context, capture, reduce, oracle):
    answer = ask("map", context, layer=2, head=3, rows=10, cols=8, reduce=reduce, encoding="f32")

    cells = dense(capture).reshape(10, 4, 8, 5)
    expected = oracle(cells.swapaxes(1, 2), axis=(2, 3))
    seen = ~np.isnan(cells).all(axis=(1, 3))
    np.testing.assert_allclose(floats(answer)[seen], expected[seen], atol=3e-6)
    assert np.isnan(floats(answer)[~seen]).all()
    assert answer["header"]["exact"] is False


def test_eight_bits_mean_the_same(context, capture):
    answer = ask("map", context, layer=2, head=3)

    header = answer["header"]
    codes = np.frombuffer(answer["body"], np.uint8).reshape(header["rows"], header["cols"])
    meaning = Quantised(codes=codes, scale=header["scale"], lo=header["lo"], hi=header["hi"])
    np.testing.assert_allclose(restore(meaning), dense(capture), rtol=0.04, atol=header["lo"])
    assert header["masked"] == 255


def test_scores_may_be_negative_and_have_a_linear_scale(context):
    answer = ask("map", context, layer=2, head=3, reading="score")
    assert answer["header"]["scale"] == "linear"
    assert answer["header"]["lo"] < 0 < answer["header"]["hi"]


def test_a_huge_region_is_sampled_first_and_exact_on_request(context, monkeypatch):
    monkeypatch.setattr(answers, "FIRST_PAIRS", 10)
    options = {"layer": 2, "head": 1, "rows": 4, "cols": 4, "encoding": "f32"}

    first = ask("map", context, **options)
    exact = ask("exact_map", context, **options, effort="exact")

    assert first["header"]["sampled"] == 4
    assert exact["header"]["sampled"] is None
    assert floats(first).shape == floats(exact).shape == (4, 4)


def test_rows_and_columns_are_lines_of_the_map(context, capture):
    whole = dense(capture)
    row = ask("row", context, layer=2, head=3, query=7)
    column = ask("column", context, layer=2, head=3, key=0)

    np.testing.assert_allclose(np.frombuffer(row["body"], "<f4"), whole[7], atol=2e-6)
    np.testing.assert_allclose(np.frombuffer(column["body"], "<f4"), whole[:, 0], atol=2e-6)
    assert row["header"]["length"] == 40


def test_the_overview_holds_every_head_with_its_mask(context, capture):
    answer = ask("overview", context, size=8)

    header = answer["header"]
    codes = np.frombuffer(answer["body"], np.uint8).reshape(header["shape"])
    assert header["shape"] == [2, HEADS, 8, 8]
    assert header["layers"] == [0, 2]
    assert (codes[0, 0] == 255).sum() == 28
    meaning = Quantised(codes=codes, scale="log", lo=header["lo"], hi=header["hi"])
    cells = np.nan_to_num(dense(capture), nan=-1).reshape(8, 5, 8, 5).max(axis=(1, 3))
    seen = np.tri(8, dtype=bool)
    np.testing.assert_allclose(restore(meaning)[1, 3][seen], cells[seen], rtol=0.05)


def test_diagnostics_are_computed_once_and_kept_beside_the_capture(context, monkeypatch):
    first = ask("diagnostics", context)
    place = context.settings.captures_folder / ("c" * 32) / "diagnostics-self-0.json"

    keys = [words["key"] for words in first["keys"]]
    assert set(keys) == set(first["values"])
    assert {"induction", "window_mass_16", "entropy_nats"} <= set(keys)
    assert not any("{window}" in text for words in first["keys"] for text in words.values())
    assert np.array(first["values"]["sink_mass"], float).shape == (2, HEADS)
    assert kept(place) == first
    fresh = Context(settings=context.settings, device="cpu", resources=Resources())
    keep(place, {"keys": [], "values": {"from": "disk"}})
    assert ask("diagnostics", fresh)["values"] == {"from": "disk"}
    place.unlink()


def test_the_summary_is_what_a_page_needs_and_json(context):
    told = json.loads(json.dumps(ask("summary", context)))

    assert [layer["index"] for layer in told["layers"]] == [0, 2]
    assert told["layers"][0]["pattern"]["key"] == "causal"
    assert (told["layers"][0]["heads"], told["layers"][0]["kv_heads"]) == (HEADS, KV_HEADS)
    assert [sequence["length"] for sequence in told["sequences"]] == [40, 30]
    assert told["sequences"][1]["next_tokens"][0] == [" the", 0.5]
    assert told["sequences"][0]["tokens"][:2] == [" t0", " t1"]


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("map", {"layer": 1}, InvalidCall),
        ("map", {"layer": 2, "head": 99}, InvalidCall),
        ("map", {"layer": 2, "sequence": 5}, InvalidCall),
        ("map", {"layer": 2, "q0": 40}, InvalidCall),
        ("map", {"layer": 2, "q0": 9, "q1": 9}, InvalidCall),
        ("map", {"layer": 2, "k0": 10**9, "k1": 10**9 + 1}, InvalidCall),
        ("row", {"layer": 2, "query": 40}, InvalidCall),
        ("column", {"layer": 2, "key": -1}, InvalidCall),
        ("overview", {"sequence": 2}, InvalidCall),
        ("diagnostics", {"sequence": -1}, InvalidCall),
        ("summary", {"capture": "d" * 32}, CaptureMissing),
        ("map", {"capture": "../../etc"}, CaptureMissing),
    ],
)
def test_wrong_questions_are_refused_with_words(context, name, arguments, error):
    with pytest.raises(error) as caught:
        ask(name, context, **arguments)
    assert len(str(caught.value)) > 20


def test_an_answer_nobody_waits_for_stops(context):
    context.stop.set()
    try:
        with pytest.raises(JobCancelled):
            ask("exact_map", context, layer=2, rows=3, cols=3, effort="exact")
    finally:
        context.stop.clear()
