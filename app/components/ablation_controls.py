"""The controls of an ablation: which heads, in what way, and how far the loss may rise."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.components.notice import control
from attnscope.app.components.widget import widget
from attnscope.app.heads import read_heads, write_heads
from attnscope.app.state import Key
from attnscope.app.views.ablation import MEASURES, AblationSession
from attnscope.app.words.ablation import WAYS
from attnscope.kernels.patterns.rule_bounds import check
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS, steps_of

_WAYS = {"zero": "zero", "mean": "its mean", "restrict": "restrict"}
_MEASURES = {"loss": "loss", "kl": "KL"}


def controls(session: AblationSession, prompts: Sequence[str]) -> None:
    """Draw them; a change is in the view before the page is drawn anew.

    Args:
        session: The visitor's.
        prompts: The beginning of each prompt of the capture.
    """
    view = session.view
    with st.container(key="ablation_controls"):
        restricts, several = view.way == "restrict", len(prompts) > 1
        asked = [2.4, *([2.4] if restricts else []), 2.4, 1.9, *([1.9] if several else [])]
        columns = iter(st.columns([*asked, 11.1 - sum(asked)], vertical_alignment="bottom"))
        with next(columns):
            st.segmented_control(
                "A head's output becomes",
                tuple(WAYS),
                format_func=_WAYS.__getitem__,
                help="Zero: nothing is added. Its mean: what it puts out over this text, at every position "
                "the same. Restrict: what it puts out where it sees fewer keys.",
                **_field(session, "way"),
            )
        if restricts:
            with next(columns):
                _rule(session)
        with next(columns):
            _heads(session)
        with next(columns):
            st.number_input(
                "Tolerated rise, nats",
                0.0,
                999.0,
                step=0.05,
                format="%g",
                help="Of the loss, where the heads are counted that can go together.",
                **_field(session, "rise"),
            )
        if several:
            with next(columns):
                st.selectbox(
                    "Prompt",
                    range(len(prompts)),
                    format_func=lambda at: f"{at + 1}. {prompts[at]}",
                    **_field(session, "sequence", pinned=None),
                )


def measure(session: AblationSession) -> None:
    """Draw the choice of what the grid of heads shows."""
    st.segmented_control(
        "Measure",
        MEASURES,
        format_func=_MEASURES.__getitem__,
        label_visibility="collapsed",
        help="Loss: how much it rises. KL: how far the predicted distributions move, whichever way.",
        **_field(session, "measure"),
    )


def position(session: AblationSession, shown: int, scored: Sequence[int]) -> None:
    """Draw the position whose prediction is looked at.

    Args:
        session: The visitor's.
        shown: The one on the page.
        scored: Those that can be.
    """
    st.number_input(
        "Position",
        min(scored),
        max(scored),
        label_visibility="collapsed",
        help="Of the token in whose place predictions are shown; a click on a token below chooses it too.",
        **widget(
            session,
            f"ablation_position_{len(scored)}",
            shown,
            lambda value: session.show(replace(session.view, pinned=int(value))),
        ),
    )


def _field(session: AblationSession, name: str, **besides: Any) -> dict[str, Any]:
    """The key and callback of a widget of a field; what else changes with it."""
    return widget(
        session,
        f"ablation_{name}",
        getattr(session.view, name),
        lambda value: session.show(replace(session.view, **{name: value, **besides})),
    )


def _rule(session: AblationSession) -> None:
    """A rule that cannot be read stays in its box, and the last good one stays in force."""

    def take(text: str) -> None:
        check(steps_of(text))
        session.show(replace(session.view, rule=" ".join(text.split())))

    _text(
        session,
        Key.ABLATION_RULE,
        "It sees key j from query i where",
        take,
        most=MOST_CHARACTERS,
        note="For example j > 0, all but the first token; i - j < 8, a window. Beside the model's own rule.",
    )


def _heads(session: AblationSession) -> None:
    def take(text: str) -> None:
        session.show(replace(session.view, heads=read_heads(text)))

    _text(
        session,
        Key.ABLATION_HEADS,
        "Heads ablated together",
        take,
        most=4000,
        note="Layer and head, such as 2.5, 3.1; or click them in the picture, “all” for a whole layer.",
    )


def _text(
    session: AblationSession,
    key: Key,
    label: str,
    take: Callable[[str], None],
    *,
    most: int,
    note: str,
) -> None:
    def changed() -> None:
        session.tell()
        take(str(session.draft(key) or ""))

    if session.draft(key) is None:
        fill_texts(session)
    st.text_input(label, key=key, max_chars=most, on_change=control(session, changed), help=note)


def fill_texts(session: AblationSession) -> None:
    """Fill the boxes from the view."""
    heads = write_heads(session.view.heads).replace(",", ", ")
    session.set_draft({Key.ABLATION_HEADS: heads, Key.ABLATION_RULE: session.view.rule})
