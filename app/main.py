"""Pages and theme, nothing else."""

from pathlib import Path

import streamlit as st

from attnscope.app.components.notice import guarded
from attnscope.app.pages import calculator, inspect
from attnscope.app.prompt_links import KeptPrompts
from attnscope.app.settings import Settings
from attnscope.app.state import CalculatorSession, Session

STYLE = Path(__file__).resolve().with_name("page.css")
ICON = Path(__file__).resolve().parents[1] / "assets" / "icon.png"


def inspect_page() -> None:
    """Run the Inspect page over this visitor's session."""

    def page() -> None:
        kept = KeptPrompts(Settings.from_environment().data / "prompts")
        inspect.page(Session.of_visitor(kept))

    guarded(page)()


def calculator_page() -> None:
    """Run the Calculator over this visitor's session."""
    guarded(lambda: calculator.page(CalculatorSession.of_visitor()))()


def main() -> None:
    """Draw the navigation and run the page chosen."""
    st.set_page_config(
        page_title="Attnscope",
        page_icon=str(ICON),
        layout="wide",
        initial_sidebar_state="auto",
    )
    st.html(STYLE)
    pages = [
        st.Page(inspect_page, title="Inspect", url_path="inspect", default=True),
        st.Page(calculator_page, title="Calculator", url_path="calculator"),
    ]
    chosen = st.navigation(pages, position="hidden")
    with st.sidebar:
        st.html('<p class="pg-brand">attnscope</p>')
        for page in pages:
            st.page_link(page)
    chosen.run()


if __name__ == "__main__":
    main()
