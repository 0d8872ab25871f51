"""The page over an engine that does its work in this process."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.prompts.links import packed
from attnscope.app.settings import Settings
from tests.app.pages.opened import open_page, told, url
from tests.app.pages.working_engine import Engine

SCRIPT = "from attnscope.app.main import rollout_page\n\nrollout_page()\n"
PROMPT = packed((4 * "Mara found the silver key. Later Mara found the silver key. ",)) or ""
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
    return app.dataframe[0].value


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)


def test_the_first_screen_answers_before_anything_is_set(visit: Open) -> None:
    app = visit()
    said = told(app)
    assert "Through layers 0 to 3" in said
    assert "from itself" in said
    assert "layer 3, head" in said
    assert len(app.get("plotly_chart")) == 3
    rows = table(app)
    assert len(rows) == 351
    assert rows["rollout"].sum() == pytest.approx(1, abs=1e-3)
    assert rows["flow"].count() == 32
    assert url(app) == {}


def test_a_change_stands_in_the_link_and_comes_back_with_it(visit: Open) -> None:
    app = visit(prompt=PROMPT, pin="9")
    assert "9 came" in told(app)
    before = table(app)["rollout"].tolist()
    app.number_input(key="rollout_part").set_value(80).run()
    app.selectbox(key="rollout_head_2").set_value(5).run()
    app.checkbox(key="rollout_by_value").check().run()
    app.selectbox(key="rollout_last_0_4").set_value(2).run()
    assert "Through layers 0 to 2" in told(app)
    kept = {name: url(app)[name] for name in ("part", "heads", "by_value", "to", "pin")}
    assert kept == {"part": "80", "heads": "2.5", "by_value": "1", "to": "2", "pin": "9"}
    after = table(app)
    assert after["rollout"].tolist() != before
    again = visit(**url(app))
    assert table(again).equals(after)
    assert url(again) == url(app)


def test_the_other_direction_has_no_flow(visit: Open) -> None:
    app = visit(prompt=PROMPT, pin="2", direction="receives")
    assert "makes" in told(app)
    assert "flow" not in table(app)
    assert len(app.get("plotly_chart")) == 2


def test_a_long_prompt_is_a_job_followed_and_found_again(
    visit: Open, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.app.asking.rollout.QUICK_S", 0.0)
    engine.held = {"rollout"}
    app = visit(prompt=PROMPT, pin="9")
    assert not app.dataframe
    assert button(app, "Roll out every token")
    assert "rollout_map" not in engine.kinds()
    again = visit(prompt=PROMPT, pin="9")
    assert engine.kinds().count("rollout") == 1
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "rollout")
    engine.work(job)
    again.run()
    assert "9 came" in told(again)
    assert "flow" not in table(again)
    button(again, "Find the flow").click().run()
    assert table(again)["flow"].count() == 10
    button(again, "Roll out every token").click().run()
    assert url(again)["whole"] == "1"
    assert len(again.get("plotly_chart")) == 3


def test_a_job_that_is_cancelled_says_so_and_is_not_asked_again(
    visit: Open, engine: Engine
) -> None:
    engine.held = {"rollout_flow"}
    app = visit(prompt=PROMPT, pin="8")
    assert app.dataframe
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "rollout_flow")
    engine.end(job, "cancelled")
    app.run()
    assert "Cancelled" in told(app)
    app.run()
    assert engine.kinds().count("rollout_flow") == 1


def test_an_encoder_decoder_is_rolled_out_within_one_stack(visit: Open) -> None:
    app = visit(model="copying")
    assert "Within the decoder alone" in told(app)
    assert app.dataframe
    app.get("button_group")[0].set_value("encoder").run()
    assert "Within the decoder alone" not in told(app)
    assert url(app)["attention"] == "encoder"


def test_a_model_that_reads_pictures_is_rolled_out_over_its_patches(visit: Open) -> None:
    app = visit(model="picture-copying", attention="encoder")
    assert "from itself" in told(app)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"part": "200"}, "a whole number from 0 to 100"),
        ({"heads": "x"}, "a head a layer"),
        ({"model": "no/such-model"}, "no/such-model"),
    ],
)
def test_bad_input_is_told_in_a_sentence(visit: Open, query: dict[str, str], said: str) -> None:
    assert said in told(visit(**query))


def test_a_link_past_the_model_is_brought_inside_it(visit: Open) -> None:
    app = visit(prompt=PROMPT, **{"from": "7", "to": "90", "heads": "2.99", "pin": "9"})
    assert "9 came" in told(app)


def test_a_model_that_sees_both_ways_has_the_flow_from_later_tokens_too(visit: Open) -> None:
    app = visit(model="picture-copying", attention="encoder", pin="2")
    assert table(app)["flow"].count() == len(table(app))
