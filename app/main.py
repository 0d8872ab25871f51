"""Pages and theme, nothing else."""

from base64 import b64encode
from pathlib import Path

import streamlit as st

from attnscope.app.components.notice import guarded
from attnscope.app.components.starting import starting
from attnscope.app.kept.matrices import KeptMatrices
from attnscope.app.pages import (
    ablation,
    backends,
    calculator,
    generation,
    inspect,
    mechanisms,
    needle,
    profile,
    rollout,
    runs,
    sparsity,
)
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.settings import Settings
from attnscope.app.state import CalculatorSession, Session, visitor
from attnscope.app.views.ablation import AblationSession
from attnscope.app.views.backends import BackendsSession, BackendsView
from attnscope.app.views.generation import GenerationSession, GenerationView
from attnscope.app.views.mechanisms import MechanismsSession
from attnscope.app.views.needle import NeedleSession, NeedleView
from attnscope.app.views.profile import ProfileSession, ProfileView
from attnscope.app.views.rollout import RolloutSession
from attnscope.app.views.runs import RunsSession
from attnscope.app.views.sparsity import SparsitySession

STYLES = tuple(
    Path(__file__).resolve().with_name("styles") / f"{name}.css"
    for name in (
        *("page", "tables", "calculator", "sparsity", "ablation", "rollout", "needle"),
        "mechanisms",
    )
)
_ICON_FILE = Path(__file__).resolve().parents[1] / "assets" / "icon.png"
# In the page itself: a file of Streamlit's is gone for a moment whenever a run of the script is broken off.
ICON = f"data:image/png;base64,{b64encode(_ICON_FILE.read_bytes()).decode()}"


def inspect_page() -> None:
    """Run the Inspect page over this visitor's session."""
    guarded(lambda: inspect.page(_session()))()


def ablation_page() -> None:
    """Run the page Ablation over this visitor's session."""

    def page() -> None:
        inspected = _session()
        state, query, owner = visitor()
        ablation.page(AblationSession(state, query, inspected.kept, owner, default=inspected.view))

    guarded(page)()


def rollout_page() -> None:
    """Run the page Rollout over this visitor's session."""

    def page() -> None:
        inspected = _session()
        state, query, owner = visitor()
        rollout.page(RolloutSession(state, query, inspected.kept, owner, default=inspected.view))

    guarded(page)()


def generation_page() -> None:
    """Run the page Generation over this visitor's session."""

    def page() -> None:
        inspected = _session()
        first = GenerationView.of(inspected.view)
        generation.page(GenerationSession(*visitor(), kept=inspected.kept, default=first))

    guarded(page)()


def sparsity_page() -> None:
    """Run the page Sparsity over this visitor's session."""

    def page() -> None:
        settings = Settings.from_environment()
        kept = KeptPrompts(settings.data / "prompts", days=settings.keep_days)
        state, query, owner = visitor()
        session = SparsitySession(state, query, kept, owner, default=_session().view)
        assignments = KeptPrompts(settings.data / "assignments", days=settings.keep_days)
        matrices = KeptMatrices(settings.matrices_folder, days=settings.keep_days)
        sparsity.page(session, matrices, assignments)

    guarded(page)()


def backends_page() -> None:
    """Run the Backends page over this visitor's session."""

    def page() -> None:
        inspected = _session()
        first = BackendsView.of(inspected.view)
        backends.page(BackendsSession(*visitor(), kept=inspected.kept, default=first))

    guarded(page)()


def needle_page() -> None:
    """Run the page Needle over this visitor's session."""

    def page() -> None:
        inspected = _session()
        first = NeedleView.of(inspected.view)
        needle.page(NeedleSession(*visitor(), kept=inspected.kept, default=first))

    guarded(page)()


def profile_page() -> None:
    """Run the Profile page over this visitor's session."""

    def page() -> None:
        view = _session().view
        first = ProfileView(model=view.model, revision=view.revision, device=view.device)
        profile.page(ProfileSession(*visitor(), default=first))

    guarded(page)()


def calculator_page() -> None:
    """Run the Calculator over this visitor's session."""
    guarded(lambda: calculator.page(CalculatorSession.of_visitor()))()


def mechanisms_page() -> None:
    """Run the page Mechanisms over this visitor's session."""
    guarded(lambda: mechanisms.page(MechanismsSession(*visitor())))()


def runs_page() -> None:
    """Run the Runs page over this visitor's session."""
    guarded(lambda: runs.page(RunsSession(*visitor())))()


def _session() -> Session:
    settings = Settings.from_environment()
    return Session.of_visitor(KeptPrompts(settings.data / "prompts", days=settings.keep_days))


def main() -> None:
    """Draw the navigation and run the page chosen."""
    st.set_page_config(
        page_title="Attnscope",
        page_icon=ICON,
        layout="wide",
        initial_sidebar_state="auto",
    )
    for style in STYLES:
        st.html(style)
    first = st.Page(inspect_page, title="Inspect", url_path="inspect", default=True)
    under = [
        st.Page(ablation_page, title="Ablation", url_path="ablation"),
        st.Page(rollout_page, title="Across layers", url_path="rollout"),
        st.Page(generation_page, title="Generation", url_path="generation"),
        st.Page(needle_page, title="Needle", url_path="needle"),
    ]
    pages = [
        st.Page(sparsity_page, title="Sparsity", url_path="sparsity"),
        st.Page(backends_page, title="Backends", url_path="backends"),
        st.Page(profile_page, title="Profile", url_path="profile"),
        st.Page(calculator_page, title="Calculator", url_path="calculator"),
        st.Page(mechanisms_page, title="Mechanisms", url_path="mechanisms"),
        st.Page(runs_page, title="Runs", url_path="runs"),
    ]
    chosen = st.navigation([first, *under, *pages], position="hidden")
    with st.sidebar:
        st.html('<p class="pg-brand">attnscope</p>')
        st.page_link(first)
        with st.container(key="under-inspect", gap=None):
            for page in under:
                st.page_link(page)
        for page in pages:
            st.page_link(page)
    with starting():
        chosen.run()


if __name__ == "__main__":
    main()
