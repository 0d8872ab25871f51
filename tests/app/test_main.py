import pytest
from streamlit.testing.v1 import AppTest

SCRIPT = "from attnscope.app.main import main\n\nmain()\n"


def test_the_navigation_names_only_pages_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnscope.app.state.owner_of", lambda cookies: None)
    app = AppTest.from_string(SCRIPT, default_timeout=30).run()
    assert not app.exception
    links = [element.proto.label for element in app.get("page_link")]
    assert links == [
        "Inspect",
        "Ablation",
        "Across layers",
        "Generation",
        "Needle",
        "Sparsity",
        "Backends",
        "Profile",
        "Calculator",
        "Mechanisms",
        "Runs",
    ]
