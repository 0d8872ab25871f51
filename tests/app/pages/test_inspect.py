import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from attnscope.app.prompts import examples
from attnscope.app.prompts.links import KeptPrompts, packed
from attnscope.app.state import Key, Session
from attnscope.kernels.errors import QueueFull
from tests.app.pages.engines import FakeEngine
from tests.app.pages.opened import open_page, said, told, url

# Run from elsewhere: beside a folder named `pages`, AppTest would run its files as pages.
SCRIPT = "from attnscope.app.main import main\n\nmain()\n"
EXAMPLES = [
    {
        "title": "A key",
        "text": "Mara found the silver key near the old mill .",
        "about": "Copying.",
    },
    {"title": "A list", "text": "one two three one two", "about": "Induction."},
]
Open = Callable[..., AppTest]


@pytest.fixture(autouse=True)
def without_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    # AppTest has no browser and gives a mock for its cookies.
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shipped = tmp_path / "examples.json"
    shipped.write_text(json.dumps(EXAMPLES))
    monkeypatch.setattr(examples, "PATH", shipped)
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path / "data"))
    fake = FakeEngine()
    with provided(fake):
        yield fake


@pytest.fixture
def visit(engine: FakeEngine) -> Open:
    return partial(open_page, SCRIPT)


def followed(app: AppTest) -> dict[str, Any] | None:
    """What the page gives the component that follows a job."""
    mounted = [each.proto for each in app.get("bidi_component")]
    given = (each for each in mounted if each.component_name == "attnscope_progress")
    return next((json.loads(each.json) for each in given), None)


def press(app: AppTest, label: str) -> AppTest:
    button = next(button for button in app.button if button.label == label)
    return button.click().run()


def shown(app: AppTest) -> Any:
    return app.session_state[Key.SHOWN]


def type_prompt(app: AppTest, text: str) -> AppTest:
    app.text_area(key=Key.DRAFT).set_value(text)
    return press(app, "Run")


def test_a_first_visit_sees_the_default_example(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    assert not app.exception
    assert engine.submitted[0]["texts"] == [EXAMPLES[0]["text"]]
    assert engine.submitted[0]["source"] == "demo"
    assert shown(app).capture_id == "capture1"
    assert app.text_area(key=Key.DRAFT).value == EXAMPLES[0]["text"]
    assert "4 layers, 8 heads, 2 kv" in told(app)
    assert "10 of 2\u202f048 tokens" in told(app)
    assert url(app) == {}


def test_run_inspects_what_was_typed(visit: Open, engine: FakeEngine) -> None:
    app = type_prompt(visit(), "Tobin sold the <b>silver</b> coin")
    assert not app.exception
    assert engine.submitted[-1]["texts"] == ["Tobin sold the <b>silver</b> coin"]
    assert shown(app).capture_id == "capture2"
    assert url(app) == {"prompt": packed(("Tobin sold the <b>silver</b> coin",))}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n\t", "white space"),
        ("x" * (2**20 + 9), ": 9 too many"),
        ("a\0b", "NUL"),
    ],
)
def test_a_refused_prompt_keeps_the_old_capture(
    visit: Open, engine: FakeEngine, text: str, words: str
) -> None:
    app = type_prompt(visit(), text)
    assert not app.exception
    assert words in told(app)
    assert shown(app).capture_id == "capture1"
    assert len(engine.submitted) == 1


def test_a_job_under_way_shows_its_progress_and_can_be_cancelled(
    visit: Open, engine: FakeEngine
) -> None:
    app = visit()
    engine.hold = True
    app = type_prompt(app, "another prompt")
    assert followed(app) == {
        "job": "job2",
        "share": 0.4,
        "step": "Running the prompt",
        "pace": "40 % · 12 layers/s · about 3\u202fs left",
    }
    assert shown(app).capture_id == "capture1"
    engine.cancel("job2")
    app = app.run()
    assert followed(app) is None
    assert "Cancelled" in told(app)
    assert shown(app).capture_id == "capture1"
    assert url(app) == {}
    assert not app.exception


def test_a_failed_job_says_why_and_keeps_the_old_capture(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    engine.fail = ("The worker died <script>", "Run it again.", "ab12cd")
    app = type_prompt(app, "another prompt")
    assert not app.exception
    assert "The worker died &lt;script&gt;" in told(app)
    assert "ab12cd" in told(app)
    assert shown(app).capture_id == "capture1"
    assert app.text_area(key=Key.DRAFT).value == "another prompt"
    assert len(engine.submitted) == 2
    app = app.run()
    assert len(engine.submitted) == 2


def test_a_first_visit_that_fails_can_be_tried_again(visit: Open, engine: FakeEngine) -> None:
    engine.fail = ("There is no demo model.", "Reinstall.", "")
    app = visit()
    assert "There is no demo model." in told(app)
    assert len(engine.submitted) == 1
    engine.fail = None
    app = press(app, "Try again")
    assert shown(app).capture_id == "capture2"
    assert not app.exception


def test_a_link_restores_the_view(visit: Open, engine: FakeEngine) -> None:
    texts = ("Mara <script>alert(1)</script>", "Tobin")
    app = visit(
        prompt=packed(texts) or "",
        layer="3",
        head="5",
        backend="tiled",
        scale="linear",
        region="0-2-0-1",
    )
    assert engine.submitted[0]["texts"] == list(texts)
    assert engine.submitted[0]["backend"] == "tiled"
    view = app.session_state["inspect_view"]
    assert (view.layer, view.head, view.scale, view.texts) == (3, 5, "linear", texts)
    assert url(app)["layer"] == "3"
    assert not app.exception


def test_a_reload_joins_the_job_under_way(visit: Open, engine: FakeEngine) -> None:
    engine.hold = True
    visit(prompt=packed(("slow",)) or "")
    app = visit(prompt=packed(("slow",)) or "")
    assert len(engine.submitted) == 1
    engine.finish("job1")
    app = app.run()
    assert shown(app).capture_id == "capture1"


def test_the_back_button_goes_back(visit: Open, engine: FakeEngine) -> None:
    app = type_prompt(visit(), "second prompt")
    app.query_params.clear()
    app = app.run()
    assert app.text_area(key=Key.DRAFT).value == EXAMPLES[0]["text"]
    assert shown(app).view.texts == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer", "<img src=x onerror=alert(1)>"),
        ("prompt", "!!!"),
        ("prompts", "0" * 32),
        ("example", "<b>no such</b>"),
        ("region", "9-1-0-0"),
        ("head", "999999999"),
    ],
)
def test_hostile_links_show_a_page(visit: Open, name: str, value: str) -> None:
    app = visit(**{name: value})
    assert not app.exception
    assert "<img" not in told(app)
    assert app.text_area(key=Key.DRAFT) is not None
    if name != "head":
        assert "pg-told" in told(app)


def test_examples_run_at_once(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    app = app.selectbox(key=Key.EXAMPLE).select("A list").run()
    assert engine.submitted[-1]["texts"] == ["one two three one two"]
    assert url(app) == {"example": "A list"}
    assert app.text_area(key=Key.DRAFT).value == "one two three one two"


def test_the_model_form(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    app.radio(key=Key.BACKEND).set_value("tiled")
    app = press(app, "Apply and run")
    assert engine.submitted[-1]["backend"] == "tiled"
    assert url(app) == {"backend": "tiled"}
    app.radio(key=Key.BACKEND).set_value("sdpa_cudnn")
    app = press(app, "Apply and run")
    assert "SDPA, cuDNN cannot run here: cuDNN needs a CUDA device" in told(app)
    assert len(engine.submitted) == 2
    assert shown(app).view.backend == "tiled"
    assert not app.exception


def test_some_layers_run_on_another_backend(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    app.text_input(key=Key.LAYER_BACKENDS).set_value("0-1: tiled")
    app = press(app, "Apply and run")
    assert engine.submitted[-1]["layer_backends"] == {"0": "tiled", "1": "tiled"}
    assert url(app) == {"layers": "0-1: tiled"}
    app.text_input(key=Key.LAYER_BACKENDS).set_value("all of them")
    app = press(app, "Apply and run")
    assert "“all of them” names no layers and backend" in told(app)
    assert len(engine.submitted) == 2
    assert not app.exception


def test_a_file_of_prompts_is_chosen_from(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    lines = "\n".join(json.dumps({"title": f"No {i}", "text": f"text {i}"}) for i in range(5))
    app.file_uploader(key=Key.UPLOAD).set_value(("many.jsonl", lines.encode(), "text/plain")).run()
    assert app.multiselect(key=Key.CHOSEN).options[4] == "5. No 4"
    app.multiselect(key=Key.CHOSEN).set_value([1, 4])
    app = press(app, "Inspect")
    assert engine.submitted[-1]["texts"] == ["text 1", "text 4"]
    assert len(shown(app).summary["sequences"]) == 2
    assert not app.exception


def test_a_file_of_one_prompt_is_inspected_at_once(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    app.file_uploader(key=Key.UPLOAD).set_value(("one.txt", b"one text", "text/plain")).run()
    assert engine.submitted[-1]["texts"] == ["one text"]
    assert app.text_area(key=Key.DRAFT).value == "one text"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"\x89PNG\x00", "binary"),
        ("a.csv", b"x,y\n1,2\n", "no column of texts"),
        ("a.txt", b"x" * (9 * 2**20), "the limit is 8"),
        ("<b>.exe", b"x", "not a kind of file"),
    ],
)
def test_a_refused_file_keeps_the_old_capture(
    visit: Open, engine: FakeEngine, name: str, data: bytes, words: str
) -> None:
    app = visit()
    app.file_uploader(key=Key.UPLOAD).set_value((name, data, "text/plain")).run()
    assert not app.exception
    assert words in told(app)
    assert "<b>" not in told(app)
    assert len(engine.submitted) == 1
    assert shown(app).capture_id == "capture1"


def test_a_full_queue_is_told(visit: Open, engine: FakeEngine) -> None:
    app = visit()
    engine.raises = QueueFull("You already have 8 jobs waiting.", "Wait for one to end.")
    app = type_prompt(app, "one more")
    assert "You already have 8 jobs waiting." in told(app)
    assert shown(app).capture_id == "capture1"


def test_an_error_of_our_own_leaves_a_code_and_no_traceback(
    visit: Open, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.raises = RuntimeError("secret path /home/me")
    app = visit()
    assert not app.exception
    assert "secret path" not in said(app)
    assert "error of its own" in said(app)
    reference = caplog.records[-1].getMessage().rsplit(" ", 1)[1]
    assert reference in said(app)


def test_a_comparison_in_a_link_makes_its_capture(visit: Open, engine: FakeEngine) -> None:
    app = visit(compare="backend:tiled")
    assert [job["backend"] for job in engine.submitted] == ["eager", "tiled"]
    assert shown(app).view.backend == "eager"
    assert url(app) == {"compare": "backend:tiled"}


def test_a_capture_of_another_prompt_stands_beside(visit: Open, engine: FakeEngine) -> None:
    app = type_prompt(visit(), "another prompt")
    session = Session(cast("Any", app.session_state), app.query_params, KeptPrompts(Path()))
    session.show(replace(session.view, compare="capture:capture1"))
    app = app.run()
    assert shown(app).capture_id == "capture2"
    assert url(app)["compare"] == "capture:capture1"
    assert told(visit(compare="capture:capture1")).count("is not held in this session") == 1


def test_without_its_server_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ATTNSCOPE_DATA", str(tmp_path))
    app = AppTest.from_string(SCRIPT, default_timeout=30).run()
    assert not app.exception
    assert "without its server" in told(app)
