"""The page over an engine that does its work in this process."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.kept.matrices import KeptMatrices
from attnscope.app.patterns_offered import SETTINGS
from attnscope.app.prompts.links import KeptPrompts, packed
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from tests.app.pages.opened import open_page, told, url
from tests.app.pages.working_engine import Engine
from tests.models.conftest import ENCODERS, tiny, tiny_tokenizer

SCRIPT = "from attnscope.app.main import sparsity_page\n\nsparsity_page()\n"
PROMPT = 8 * "Mara found the silver key. Later Mara found the silver key. "
Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> Context:
    torch.set_num_threads(1)
    data = tmp_path_factory.mktemp("data")
    return Context(settings=Settings(data=data), device="cpu", resources=Resources())


@pytest.fixture
def engine(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    # AppTest has no browser and gives a mock for its cookies.
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: "me")
    monkeypatch.setenv("ATTNSCOPE_DATA", str(context.settings.data))
    monkeypatch.setattr("attnscope.app.asking.worked.MOMENT_S", 0.1)
    engine = Engine(context)
    with provided(engine):
        yield engine


@pytest.fixture
def visit(engine: Engine) -> Open:
    return partial(open_page, SCRIPT)


def table(app: AppTest) -> Any:
    return app.dataframe[0].value.set_index("pattern")


def test_the_first_screen_has_masks_mass_and_error_before_anything_is_set(visit: Open) -> None:
    app = visit()
    said = told(app)
    assert "pairs kept" in said
    assert "exact over its pairs, and a different function from dense attention" in said
    assert len(app.get("plotly_chart")) == 3
    rows = table(app)
    assert len(rows) == 13 + 4
    assert rows.index.str.startswith("fitted: ").sum() == 3
    assert rows.loc["causal", "mass"] == pytest.approx(1, abs=1e-3)
    assert rows.loc["causal", "error"] == pytest.approx(0, abs=1e-3)
    assert rows["mask"].str.startswith("data:image/png;base64,").all()
    best = rows[rows["best"] == "best"]
    within = rows[rows["kept"] <= 0.25]
    assert len(best) == 1
    assert best["mass"].item() == within["mass"].max()
    assert set(url(app)) == {"layer", "head"}


def test_a_change_is_drawn_stands_in_the_link_and_comes_back_with_it(visit: Open) -> None:
    app = visit(prompt=packed_prompt())
    app.number_input(key="sparsity_sinks_window_window").set_value(3).run()
    app.number_input(key="sparsity_length").set_value(4096).run()
    app.selectbox(key="sparsity_block").set_value(32).run()
    assert "keys of the last query" in told(app)
    assert url(app)["set"] == "sinks_window.window.3"
    assert url(app)["length"] == "4096"
    again = visit(**url(app))
    assert table(again).equals(table(app))
    assert url(again) == url(app)
    assert re.findall(r"<dd>.*?</dd>", told(again)) == re.findall(r"<dd>.*?</dd>", told(app))


def packed_prompt() -> str:
    return packed((PROMPT,)) or ""


def test_a_family_has_its_controls_and_its_mask(visit: Open) -> None:
    app = visit(prompt=packed_prompt())
    for key in ("causal", "bigbird", "rule", "matrix", "axial"):
        app.selectbox(key="sparsity_pattern").set_value(key).run()
        assert url(app).get("pattern", "sinks_window") == key
        assert len(app.get("plotly_chart")) == (2 if key == "matrix" else 3)
        for setting in SETTINGS[key]:
            assert app.number_input(key=f"sparsity_{key}_{setting.name}").value == setting.default
        told(app)


def test_a_window_over_the_prompt_is_not_tried_and_says_so(visit: Open) -> None:
    app = visit(prompt=packed(("Mara found the key",)) or "")
    assert "Not tried" in told(app)
    assert "sliding window" in told(app)
    assert len(table(app)) < 13 + 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("i <", "The rule cannot be read"),
        ("__import__('os').system('x')", "The rule holds “__import__”"),
        ("i % j == 0", "divides by what can be zero"),
        ("<b>i</b>", "The rule"),
    ],
)
def test_a_bad_rule_is_told_and_nothing_is_lost(
    visit: Open, engine: Engine, text: str, said: str
) -> None:
    app = visit(prompt=packed_prompt(), pattern="rule", rule="i - j < 3")
    jobs = len(engine.jobs)
    app.text_input(key=Key.SPARSITY_RULE).set_value(text).run()
    assert said in told(app)
    assert "<b>i</b>" not in told(app)
    assert len(engine.jobs) == jobs
    assert app.text_input(key=Key.SPARSITY_RULE).value == text
    assert url(app)["rule"] == "i - j < 3"
    app.text_input(key=Key.SPARSITY_RULE).set_value("i - j  < 4").run()
    assert said not in told(app)
    assert url(app)["rule"] == "i - j < 4"


def test_a_rule_that_sees_nothing_is_refused(visit: Open) -> None:
    app = visit(prompt=packed_prompt(), pattern="rule", rule="i - j > 999")
    assert "This pattern sees nothing at" in told(app)
    assert len(table(app)) == 12 + 4


@pytest.mark.parametrize(
    ("query", "said"),
    [
        pytest.param({"pattern": "warp"}, "is not one of", id="pattern"),
        pytest.param({"pattern": "matrix", "matrix": "0" * 32}, "not kept here", id="matrix"),
        pytest.param({"pattern": "axial", "set": "axial.height.1"}, "has 16 places", id="axial"),
        pytest.param(
            {"length": "131072", "block": "16"}, "Choose larger blocks", id="too many blocks"
        ),
        pytest.param({"model": "no/such-model"}, "no/such-model", id="model"),
    ],
)
def test_bad_input_is_told_in_a_sentence(visit: Open, query: dict[str, str], said: str) -> None:
    assert said in told(visit(**query))


def test_an_uploaded_matrix_is_a_pattern_like_the_others(visit: Open, context: Context) -> None:
    name = KeptMatrices(context.settings.matrices_folder).keep(np.tril(np.ones((200, 200), bool)))
    app = visit(prompt=packed_prompt(), pattern="matrix")
    assert "Upload a matrix" in told(app)
    app = visit(prompt=packed_prompt(), pattern="matrix", matrix=name)
    assert table(app).loc["matrix (200 by 200)", "mass"] == pytest.approx(1, abs=1e-3)


def test_a_long_job_is_watched_found_after_a_reload_and_cancelled(
    visit: Open, engine: Engine
) -> None:
    engine.held = {"sparsity_effects"}
    app = visit(prompt=packed_prompt(), set="local.window.3")
    assert not app.dataframe
    again = visit(prompt=packed_prompt(), set="local.window.3")
    assert engine.kinds().count("sparsity_effects") == 1
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "sparsity_effects")
    engine.work(job)
    assert len(table(again.run())) == 13 + 4
    engine.end(job, "cancelled")
    app.run()
    assert "Cancelled" in told(app)
    assert engine.kinds().count("sparsity_effects") == 1


def test_a_job_that_fails_says_why_and_is_not_asked_again(visit: Open, engine: Engine) -> None:
    engine.held = {"sparsity_effects"}
    app = visit(prompt=packed_prompt(), set="local.window.5")
    engine.end("job1" if "job1" in engine.jobs else "job0", "failed", "The worker died.")
    app.run()
    assert "The worker died." in told(app)
    app.run()
    assert engine.kinds().count("sparsity_effects") == 1


def run_model(app: AppTest) -> AppTest:
    next(each for each in app.button if each.label == "Run the model").click()
    return app.run()


def test_the_model_is_run_within_the_pattern_and_a_link_finds_what_came_of_it(
    visit: Open, engine: Engine
) -> None:
    app = run_model(visit(prompt=packed_prompt(), new_tokens="2", timed="0"))
    said = told(app)
    assert re.search(r"the loss (rose|fell) by \d\.\d+, from \d\.\d+ to", said)
    assert "visible pairs" in said
    assert "What it goes on with" in said
    assert len(app.get("plotly_chart")) == 4
    jobs = len(engine.jobs)
    assert "the loss" in told(visit(**url(app)))
    # The capture and what was found of patterns are kept too: all three are asked for, none is made anew.
    assert engine.kinds()[jobs:] == ["inspect", "sparsity_effects", "sparsity_best"]
    gone = visit(**{**url(app), "ran": "0" * 32})
    assert "not kept here any more" in told(gone)
    assert "ran" not in url(gone)


def test_causal_on_a_causal_model_changes_nothing(visit: Open) -> None:
    app = run_model(visit(prompt=packed_prompt(), pattern="causal", new_tokens="0", timed="0"))
    assert "causal: the loss did not move" in told(app)
    assert "No text was asked for" in told(app)


def test_only_some_layers_can_be_run_with_it(visit: Open, engine: Engine) -> None:
    app = run_model(visit(prompt=packed_prompt(), within="1,2", new_tokens="0", timed="0"))
    assert "layers 1, 2: the loss" in told(app)
    asked = list(engine.jobs.values())[-1][1]
    assert (asked["layers"], asked["backend"]) == ([1, 2], "tiled")


def test_each_head_runs_with_its_best_and_the_assignment_goes_round_a_file(
    visit: Open, engine: Engine
) -> None:
    app = visit(prompt=packed_prompt(), run="heads", new_tokens="0", timed="0")
    assert "The best of each head within the budget" in told(app)
    app = run_model(app)
    assert "each head its own: the loss" in told(app) or "by head: the loss" in told(app)
    text = list(engine.jobs.values())[-1][1]["assignment"]
    assert sum(len(heads) for heads in json.loads(text)["layers"].values()) == 32
    kept = KeptPrompts(engine.context.settings.data / "assignments").keep((text,))
    again = visit(prompt=packed_prompt(), run="heads", assignment=kept, new_tokens="0", timed="0")
    assert "From the file" in told(again)
    other = json.dumps({**json.loads(text), "layers": {"0": [0]}})
    wrong = KeptPrompts(engine.context.settings.data / "assignments").keep((other,))
    refused = visit(prompt=packed_prompt(), run="heads", assignment=wrong)
    assert "gives layer 0 1 heads, and here it has 8" in told(refused)
    assert "assignment" not in url(refused)
    lost = visit(prompt=packed_prompt(), run="heads", assignment="0" * 32)
    assert "not kept here. Import it again" in re.sub("<[^>]*>", "", told(lost))


def test_a_pattern_made_for_a_head_is_drawn_and_run_on_that_head_alone(
    visit: Open, engine: Engine
) -> None:
    app = visit(prompt=packed_prompt(), layer="2", head="3", fitted="vertical_slash", timed="0")
    assert app.selectbox(key="sparsity_pattern").value == "made:vertical_slash"
    rows = table(app)
    row = rows[rows.index.str.startswith("fitted: vertical slash")].iloc[0]
    # The mask's own stand first, and those of the head's own mask after them.
    kept = dict(reversed(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", told(app))))
    assert float(kept["pairs kept"].split()[0]) == pytest.approx(100 * row["kept"], rel=1e-2)
    assert float(kept["mass kept"].split()[0]) == pytest.approx(100 * row["mass"], rel=1e-2)
    assert "made for layer 2, head 3: it runs on that head alone" in told(app)
    app = run_model(app)
    assert ", layer 2, head 3 alone: the loss" in told(app)
    asked = list(engine.jobs.values())[-1][1]
    (layer,) = json.loads(asked["assignment"])["layers"].items()
    assert layer == ("2", [None, None, None, 0, None, None, None, None])
    assert "alone: the loss" in told(visit(**url(app)))
    app.selectbox(key="sparsity_pattern").set_value("causal").run()
    assert "fitted" not in url(app)
    assert url(app)["pattern"] == "causal"
    assert len(app.get("plotly_chart")) == 4


def test_a_kind_that_does_not_fit_the_head_says_so(visit: Open) -> None:
    app = visit(prompt=packed_prompt(), layer="2", head="3", fitted="block_list", budget="1")
    assert "No block list within 1 % of the pairs fits this head" in told(app)
    button = next(each for each in app.button if each.label == "Run the model")
    assert button.disabled


@pytest.mark.parametrize("name", ["linear", "performer"])
def test_an_approximation_says_what_it_is_and_how_far_it_is_off(visit: Open, name: str) -> None:
    app = visit(prompt=packed_prompt(), run=name, new_tokens="0", timed="0")
    assert "it changes every weight" in told(app)
    assert "mean of the heads" in told(app)
    assert "a query would see past what its pattern shows" in told(app)
    assert len(app.get("plotly_chart")) == (4 if name == "linear" else 5)
    assert "the loss rose by" in told(run_model(app))


def test_linformer_refuses_a_model_that_hides_the_future(visit: Open) -> None:
    app = run_model(visit(prompt=packed_prompt(), run="linformer", new_tokens="0", timed="0"))
    assert "Linformer" in told(app)
    assert "the loss" not in told(app)
    assert "ran" not in url(app)


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random encoder with a mask token, as transformers saves it."""
    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    config = ENCODERS[request.param]()
    config.max_position_embeddings = 512
    tiny(config, hf.AutoModelForMaskedLM).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "~"})
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_an_encoder_goes_through_the_whole_page(visit: Open, engine: Engine, encoder: str) -> None:
    prompt = packed(("Mara found the silver key. " * 4,)) or ""
    app = visit(prompt=prompt, model=encoder, timed="0")
    rows = table(app)
    assert {"local (window 32)", "sinks window (window 32, sinks 4)"} <= set(rows.index)
    assert rows.index.str.startswith("fitted: ").sum() == 3
    assert rows.loc["causal", "mass"] < 0.9
    assert not app.checkbox(key="sparsity_causal").value
    assert "read off the head" in told(app)
    app = run_model(app)
    assert "nats a hidden token" in told(app)
    assert "Moved most" in told(app)
    assert "An encoder generates no text" in told(app)
    assert app.number_input(key="sparsity_new_tokens").disabled
    assert list(engine.jobs.values())[-1][1]["new_tokens"] == 0
    app.selectbox(key="sparsity_run").set_value("linformer").run()
    assert "mean of the heads" in told(app)
    charts = [element.proto.id for element in app.get("plotly_chart")]
    assert sum("errors-over" in each for each in charts) == 2
    app = run_model(app)
    if "modernbert" in encoder:
        assert "; 1 of 2 layers refuse it" in told(app)
        assert "see past what its pattern shows" in told(app)
    else:
        assert "Linformer (random projection of the length): the loss" in told(app)
    by_head = run_model(visit(prompt=prompt, model=encoder, run="heads", timed="0"))
    assert "nats a hidden token" in told(by_head)


def test_a_run_is_watched_survives_a_reload_and_can_be_cancelled(
    visit: Open, engine: Engine
) -> None:
    engine.held = {"sparsity_run"}
    app = run_model(visit(prompt=packed_prompt(), new_tokens="3", timed="0"))
    button = next(each for each in app.button if each.label == "Run the model")
    assert button.disabled
    again = visit(**url(app))
    assert engine.kinds().count("sparsity_run") == 1
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "sparsity_run")
    engine.end(job, "cancelled")
    assert "Cancelled" in told(again.run())
    assert "ran" not in url(again)


def test_a_heads_own_mask_follows_its_rule(visit: Open) -> None:
    app = visit(prompt=packed_prompt(), own="top_k", own_value="3", layer="1", head="2")
    assert "most 3<" in told(app) or "most 4<" in told(app)
    app.number_input(key="sparsity_own_value_top_k").set_value(1).run()
    assert url(app)["own_value"] == "1"
    assert re.search(r"1, most \d<", told(app))


def test_a_new_prompt_keeps_the_pattern(visit: Open) -> None:
    app = visit(prompt=packed_prompt(), pattern="local", set="local.window.9")
    app.text_area(key=Key.DRAFT).set_value("Mara found the silver key again and again. " * 6)
    next(each for each in app.button if each.label == "Run").click().run()
    assert url(app)["pattern"] == "local"
    assert "local (window 9)" in table(app).index
