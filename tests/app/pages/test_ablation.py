"""The page over an engine that does its work in this process."""

import re
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
from attnscope.app.state import Key
from attnscope.models.interventions import Intervention, ablate
from attnscope.models.loading import load
from tests.app.pages.opened import open_page, told, url
from tests.app.pages.working_engine import Engine

SCRIPT = "from attnscope.app.main import ablation_page\n\nablation_page()\n"
TEXT = "Mara found the silver key. Later Mara found the silver key."
PROMPT = packed((TEXT,)) or ""
Open = Callable[..., AppTest]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
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


def plain(app: AppTest) -> str:
    return re.sub("<[^>]*>", "", told(app))


def test_the_first_screen_says_which_head_is_needed_most(visit: Open) -> None:
    app = visit()
    said = plain(app)
    assert "is missed most: the loss rose by" in said
    assert "Least missed first," in said
    assert re.search(r"Where head \d\.\d is put to zero, the loss rose by \d\.\d+", said)
    assert len(app.get("plotly_chart")) == 5
    assert re.search(r"Head (\d\.\d)", said)[1] == url(app)["heads"]  # pyright: ignore[reportOptionalSubscript]
