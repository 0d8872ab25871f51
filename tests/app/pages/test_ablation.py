"""The page over an engine that does its work in this process."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers as hf
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.prompts.links import packed
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.ablation_sweep import sweep
from attnscope.models.interventions import Intervention, ablate
from attnscope.models.loading import load
from tests.app.pages.opened import open_page, told, url
from tests.app.pages.working_engine import Engine
from tests.models.conftest import ENCODERS, tiny, tiny_tokenizer

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
    return partial(open_page, SCRIPT, prompt=PROMPT)


def plain(app: AppTest) -> str:
    return " ".join(re.sub("<[^>]*>", " ", told(app)).split())


def charts(app: AppTest) -> list[str]:
    return [element.proto.id for element in app.get("plotly_chart")]


def test_the_first_screen_says_which_head_is_needed_most(visit: Open) -> None:
    app = visit()
    found = sweep(load("demo"), TEXT)
    layer, head = found.order[-1]
    rise = found.heads[layer, head].loss - found.loss
    said = plain(app)
    assert f"Head {layer}.{head} is missed most: without it the loss rises by {rise:.3f}" in said
    gone = f"{found.spared(0.1)} of the 32 can go before it rises by more than 0.1"
    assert f"Least missed first, {gone}" in said
    assert f"Head {layer}.{head} put to zero: the loss rises by {rise:.3f}" in said
    assert url(app)["heads"] == f"{layer}.{head}"
    assert len(charts(app)) == 5
    app.segmented_control(key="ablation_measure").set_value("kl")
    app.number_input(key="ablation_rise").set_value(0.5).run()
    assert (url(app)["measure"], url(app)["rise"]) == ("kl", "0.5")
    assert f"{found.spared(0.5)} of the 32 can go before it rises by more than 0.5" in plain(app)
    assert plain(visit(**url(app))) == plain(app)


def test_heads_of_a_link_are_ablated_and_a_link_leads_back_to_inspect(
    visit: Open, engine: Engine
) -> None:
    engine.held = {"ablation_sweep"}
    app = visit(heads="2.5,1.0", way="mean")
    done = Intervention(heads=((1, 0), (2, 5)), way="mean")
    loss = ablate(load("demo"), TEXT, intervention=done).loss
    said = plain(app)
    assert f"from {loss.before:.3f} to {loss.after:.3f} nats a token" in said
    assert "Heads 1.0 and 2.5 replaced by their means over the text" in said
    assert app.text_input(key=Key.ABLATION_HEADS).value == "1.0, 2.5"
    links = re.findall(r'href="(/\?[^"]*)"', told(app))
    assert [re.search(r"layer=(\d)&amp;head=(\d)", link).groups() for link in links] == [  # pyright: ignore[reportOptionalMemberAccess]
        ("1", "0"),
        ("2", "5"),
    ]
    assert all("prompt=" in link for link in links)


def test_the_rule_of_restrict_is_the_visitors(visit: Open, engine: Engine) -> None:
    engine.held = {"ablation_sweep"}
    app = visit(heads="1.0", way="restrict", rule="i - j < 2")
    done = Intervention(heads=((1, 0),), way="restrict", pattern=pattern("rule", text="i - j < 2"))
    loss = ablate(load("demo"), TEXT, intervention=done).loss
    assert "Head 1.0 held to “i - j &lt; 2”" in plain(app)
    assert f"to {loss.after:.3f} nats a token" in plain(app)
    app.text_input(key=Key.ABLATION_RULE).set_value("i <").run()
    assert "The rule cannot be read" in plain(app)
    assert url(app)["rule"] == "i - j < 2"
    app.text_input(key=Key.ABLATION_RULE).set_value("i  -  j < 3").run()
    assert url(app)["rule"] == "i - j < 3"
    assert "held to “i - j &lt; 3”" in plain(app)


def test_heads_are_typed_or_refused_in_words(visit: Open) -> None:
    app = visit(heads="1.0")
    app.text_input(key=Key.ABLATION_HEADS).set_value("3.1 0.2").run()
    assert url(app)["heads"] == "0.2,3.1"
    app.text_input(key=Key.ABLATION_HEADS).set_value("x").run()
    assert "“x” is no head" in plain(app)
    assert url(app)["heads"] == "0.2,3.1"
    app.text_input(key=Key.ABLATION_HEADS).set_value("1.8").run()
    assert "There is no head 1.8 in Demo model" in plain(app)
    app.text_input(key=Key.ABLATION_HEADS).set_value("").run()
    assert re.fullmatch(r"\d\.\d", url(app)["heads"])


@pytest.mark.parametrize(
    ("place", "heads"),
    [([3, 1], "1.0,3.1"), ([1, 0], ""), ([1, -1], ",".join(f"1.{head}" for head in range(8)))],
)
def test_a_click_takes_a_head_in_or_out_and_a_whole_layer(
    engine: Engine, place: list[int], heads: str
) -> None:
    script = (
        "from attnscope.app.asking.captures import Shown\n"
        "from attnscope.app.main import _session\n"
        "from attnscope.app.pages import ablation\n"
        "from attnscope.app.state import Key, visitor\n"
        "from attnscope.app.views.ablation import AblationSession\n"
        "session = AblationSession(*visitor()[:2], _session().kept)\n"
        "session.follow_url()\n"
        f"clicked = {{'selection': {{'points': [{{'customdata': {place}}}]}}}}\n"
        "session.set_draft({Key.ABLATION_GRID: clicked})\n"
        "summary = {'layers': 4 * [{'heads': 8}]}\n"
        "shown = Shown(capture_id='', summary=summary, view=session.view)\n"
        "ablation._choose_clicked(session, shown)\n"
    )
    app = open_page(script, heads="1.0")
    assert not app.exception
    assert url(app).get("heads", "") == heads


def test_a_pinned_token_is_shown_in_its_place(visit: Open, engine: Engine) -> None:
    engine.held = {"ablation_sweep"}
    app = visit(heads="1.0", pin="15")
    assert "Pinned in place of “silver”, position 15" in plain(app)
    app.number_input(key="ablation_position_17").set_value(16).run()
    assert "in place of “key”, position 16" in plain(app)
    assert url(app)["pin"] == "16"
    # Nothing is predicted in the place of the first token.
    assert "Moved most" in plain(visit(heads="1.0", pin="0"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        pytest.param({"heads": "a.b"}, "“a.b” is no head", id="no head"),
        pytest.param({"heads": "7.1"}, "There is no head 7.1", id="another model's"),
        pytest.param(
            {"way": "twist", "heads": "1.0"}, "is not one of zero, mean, restrict", id="way"
        ),
        pytest.param({"rise": "x"}, "is not nats from 0 to 999", id="rise"),
        pytest.param(
            {"way": "restrict", "rule": "j > i", "heads": "1.0"}, "anything to see", id="rule"
        ),
        pytest.param(
            {"prompt": packed(("M",)) or "", "heads": "1.0"},
            "Over 1 token of the text",
            id="one token scored",
        ),
        pytest.param(
            {"model": "copying", "prompt": packed(("abcdef",)) or ""},
            "heads are ablated in models of one stack",
            id="encoder-decoder",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(
    visit: Open, engine: Engine, query: dict[str, str], said: str
) -> None:
    engine.held = {"ablation_sweep"}
    assert said in plain(visit(**query))


def test_a_long_sweep_waits_to_be_asked_for_is_found_again_and_cancelled(
    visit: Open, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnscope.app.asking.ablation.QUICK_SWEEP_S", 0.0)
    engine.held = {"ablation_sweep"}
    app = visit(heads="0.1", way="mean", rise="0.25")
    assert "ablation_sweep" not in engine.kinds()
    assert "Head 0.1 replaced by its mean" in plain(app)
    button = next(each for each in app.button if each.label == "Sweep every head")
    button.click().run()
    assert engine.kinds().count("ablation_sweep") == 1
    again = visit(**url(app))
    assert engine.kinds().count("ablation_sweep") == 1
    assert not any(each.label == "Sweep every head" for each in again.button)
    job = next(job for job, (kind, _, _) in engine.jobs.items() if kind == "ablation_sweep")
    engine.end(job, "cancelled")
    assert "Cancelled" in plain(again.run())
    assert any(each.label == "Sweep every head" for each in again.button)
    app.run()
    engine.held = set()
    next(each for each in app.button if each.label == "Sweep every head").click().run()
    assert "is missed most" in plain(app)


def test_what_was_found_is_kept_beside_the_capture(visit: Open, engine: Engine) -> None:
    def kept() -> dict[Path, int]:
        found = engine.context.settings.captures_folder.glob("*/ablation-*.json")
        return {path: path.stat().st_mtime_ns for path in found}

    engine.held = {"ablation_sweep"}
    visit(heads="2.2")
    before = kept()
    visit(heads="2.2")
    assert kept() == before
    visit(heads="2.3")
    assert len(kept()) == len(before) + 1


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with a mask token, as transformers saves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    tiny(ENCODERS["bert"](), hf.AutoModelForMaskedLM).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "~"})
    tokenizer.save_pretrained(folder)
    return folder


def test_an_encoder_is_judged_by_what_it_guesses(visit: Open, encoder: Path) -> None:
    app = visit(model=str(encoder))
    said = plain(app)
    assert "nats a hidden token" in said
    assert "The next token" not in said
    assert len(charts(app)) == 4
