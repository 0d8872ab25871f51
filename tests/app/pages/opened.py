"""A page opened at a link, and what it says."""

from streamlit.testing.v1 import AppTest


def open_page(script: str, **query: str) -> AppTest:
    """A script of Streamlit, run once at these parameters of the URL."""
    app = AppTest.from_string(script, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest) -> str:
    """All that it says as HTML."""
    assert not app.exception
    return " ".join(str(element.proto.body) for element in app.get("html"))


def told(app: AppTest) -> str:
    """The same, where nothing may have gone wrong."""
    text = said(app)
    assert "Traceback" not in text
    assert "error of its own" not in text
    return text


def url(app: AppTest) -> dict[str, str]:
    """The parameters of its URL."""
    return {
        name: value[-1] if isinstance(value, list) else value
        for name, value in app.query_params.items()
    }
