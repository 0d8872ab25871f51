"""The controls of a pattern: its family, its numbers, its text or its matrix, and at which length it is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.components.notice import control
from attnscope.app.components.widget import widget
from attnscope.app.kept.matrices import (
    MOST_BYTES,
    MOST_SIDE,
    SUFFIXES,
    KeptMatrices,
    uploaded_matrix,
)
from attnscope.app.page_session import Notice
from attnscope.app.patterns_offered import (
    IMPLIED_CAUSAL,
    LONGEST,
    SETTINGS,
    Setting,
    title,
    values,
    with_value,
)
from attnscope.app.state import Key
from attnscope.app.views.sparsity import BLOCKS, OWN, SparsitySession
from attnscope.kernels.errors import UnknownPattern
from attnscope.kernels.patterns.rule_bounds import check
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS, steps_of
from attnscope.profiling.units import count, nbytes

_RECEIVED_MIB = 64


def controls(
    session: SparsitySession, kept: KeptMatrices, *, tokens: int | None, causal: bool
) -> None:
    """Draw them; a change is in the view before the page is drawn anew.

    Args:
        session: The visitor's.
        kept: Where uploaded matrices go.
        tokens: Of the prompt; None while there is none.
        causal: Whether masks are composed with j ≤ i.
    """
    view = session.view
    family = "" if view.fitted else view.pattern
    settings = SETTINGS.get(family, ())
    own = [1.15] * len(settings) if settings else [3.4] if family in ("rule", "matrix") else []
    with st.container(key="sparsity_controls"):
        columns = st.columns([1.9, *own, 1.25, 1.3, 1.1, 1.0], vertical_alignment="bottom")
        first, *numbers, past, length, block, zoom = columns
        with first:
            _pattern(session)
        if family == "rule":
            with numbers[0]:
                _rule(session)
        elif family == "matrix":
            with numbers[0]:
                _matrix(session, kept)
        for column, setting in zip(numbers, settings, strict=False):
            with column:
                _number(session, setting)
        with past:
            _past(session, causal)
        with length:
            _length(session, tokens)
        with block:
            st.selectbox(
                "Blocks of",
                BLOCKS,
                help="Tokens a side of the blocks that a kernel visits or skips.",
                **field(session, "block"),
            )
        with zoom, st.popover("Zoom", width="stretch", disabled=tokens is None):
            _zoom(session, _drawn_length(session, tokens))


def field(
    session: SparsitySession, name: str, *, read: Callable[[Any], Any] = lambda value: value
) -> dict[str, Any]:
    """The key and the callback of a widget that shows a field of the view.

    Args:
        session: The visitor's.
        name: Of the field.
        read: Makes the field's value of what the widget holds.
    """
    shown = getattr(session.view, name)
    return widget(
        session,
        f"sparsity_{name}",
        list(shown) if isinstance(shown, tuple) else shown,
        lambda value: session.show(replace(session.view, **{name: read(value)})),
    )


def _pattern(session: SparsitySession) -> None:
    """The families, and what was made for one head while that stands in their place."""
    view = session.view

    def take(key: str) -> None:
        session.show(replace(session.view, pattern=key, fitted=""))

    made = f"made:{view.fitted}"
    words = "best at the budget" if view.fitted == "budget" else f"fitted: {title(view.fitted)}"
    st.selectbox(
        "Pattern",
        [*SETTINGS, made] if view.fitted else list(SETTINGS),
        format_func=lambda key: words if key == made else title(key),
        **widget(session, "sparsity_pattern", made if view.fitted else view.pattern, take),
    )


def _number(session: SparsitySession, setting: Setting) -> None:
    key = session.view.pattern

    def take(value: int) -> None:
        changed = with_value(session.view.settings, key, setting.name, int(value))
        session.show(replace(session.view, settings=changed))

    shown = values(key, session.view.settings)[setting.name]
    st.number_input(
        setting.title,
        setting.least,
        setting.most,
        help=f"{setting.limits}.",
        **widget(session, f"sparsity_{key}_{setting.name}", shown, take),
    )


def _rule(session: SparsitySession) -> None:
    """A rule that cannot be read stays in its box, and the last good one stays the pattern."""

    def take() -> None:
        session.tell()
        text = str(session.draft(Key.SPARSITY_RULE) or "")
        check(steps_of(text))
        session.show(replace(session.view, rule=" ".join(text.split())))

    if session.draft(Key.SPARSITY_RULE) is None:
        session.set_draft({Key.SPARSITY_RULE: session.view.rule})
    st.text_input(
        "Query i sees key j where",
        key=Key.SPARSITY_RULE,
        max_chars=MOST_CHARACTERS,
        on_change=control(session, take),
        help="Whole numbers, i, j, + - \\* // %, comparisons, and, or, not, abs, min, max and "
        "parentheses. The text is read, never run.",
    )


def _matrix(session: SparsitySession, kept: KeptMatrices) -> None:
    def take() -> None:
        session.tell()
        file = session.draft(Key.SPARSITY_UPLOAD)
        if file is None:
            return
        matrix = uploaded_matrix(file.getvalue(), file.name)
        if not matrix.any():
            raise UnknownPattern("The matrix hides every pair.", "Set some of it to true.")
        session.show(replace(session.view, matrix=kept.keep(matrix)))
        rows, columns = matrix.shape
        said = f"Read {count(rows)} queries by {count(columns)} keys from {file.name}."
        session.tell(Notice(kind="told", message=said))

    with st.popover("Upload a matrix" if not session.view.matrix else "Another matrix"):
        st.file_uploader(
            "A matrix of booleans, a row a query",
            key=Key.SPARSITY_UPLOAD,
            max_upload_size=_RECEIVED_MIB,
            on_change=control(session, take),
        )
        st.caption(
            f"{' '.join(SUFFIXES)}, up to {nbytes(MOST_BYTES)} and {count(MOST_SIDE)} rows and "
            "columns: booleans saved by NumPy without pickle, 0 and 1 separated by commas, or a black "
            "and white picture, white where the query sees the key."
        )


def _past(session: SparsitySession, causal: bool) -> None:
    implied = session.view.pattern in IMPLIED_CAUSAL
    st.checkbox(
        "Past only",
        disabled=implied or bool(session.view.fitted),
        help="Composes the mask with j ≤ i. On the heads, a pattern is always composed with the "
        "model's own rule.",
        **widget(
            session,
            "sparsity_causal",
            implied or causal,
            lambda value: session.show(replace(session.view, causal=bool(value))),
        ),
    )


def _length(session: SparsitySession, tokens: int | None) -> None:
    def take(value: int) -> None:
        own = 0 if value == tokens else int(value)
        session.show(replace(session.view, length=own, zoom=None))

    st.number_input(
        "Length, tokens",
        1,
        LONGEST,
        disabled=bool(session.view.fitted),
        help=f"Of the mask drawn, up to {count(LONGEST)}; at first the prompt's. What was made for a "
        "head is drawn at the prompt's.",
        **widget(session, "sparsity_length", _drawn_length(session, tokens), take),
    )


def _drawn_length(session: SparsitySession, tokens: int | None) -> int:
    own = 0 if session.view.fitted else session.view.length
    return own or tokens or 1


def _zoom(session: SparsitySession, length: int) -> None:
    """Which queries and keys are drawn; few enough are drawn pair by pair."""
    region = session.view.zoom or (0, length, 0, length)
    if length < 2:
        st.caption("There is one pair.")
        return
    for place, name in ((0, "Queries"), (2, "Keys")):

        def take(ends: tuple[int, int], place: int = place) -> None:
            first, last = ends
            last = max(last, first + 1)
            before = session.view.zoom or (0, length, 0, length)
            now = (first, last, *before[2:]) if place == 0 else (*before[:2], first, last)
            whole = now == (0, length, 0, length)
            session.show(replace(session.view, zoom=None if whole else now))

        first, last = (min(each, length) for each in region[place : place + 2])
        st.slider(
            name,
            0,
            length,
            **widget(session, f"sparsity_zoom_{name}_{length}", (first, last), take),
        )
    st.caption("Up to 256 queries and keys are drawn pair by pair.")


def choice(session: SparsitySession, name: str, words: Mapping[str, str]) -> None:
    """Draw a field of a few words as one control."""
    st.segmented_control(
        name,
        list(words),
        format_func=words.__getitem__,
        label_visibility="collapsed",
        **field(session, name),
    )


def head_choice(
    session: SparsitySession, layers: Sequence[int], heads: int, prompts: Sequence[str]
) -> None:
    """Draw the head that is looked at, and the budget of its patterns.

    Args:
        session: The visitor's.
        layers: The model's own number of each layer.
        heads: Of the layer chosen.
        prompts: The beginning of each prompt of the capture.
    """
    with st.popover("Head and budget"):
        if len(prompts) > 1:
            st.selectbox(
                "Prompt",
                range(len(prompts)),
                format_func=lambda at: f"{at + 1}. {prompts[at]}",
                **field(session, "sequence"),
            )
        st.selectbox(
            "Layer",
            range(len(layers)),
            format_func=lambda place: str(layers[place]),
            **field(session, "layer"),
        )
        st.selectbox("Head", range(heads), **field(session, "head"))
        st.slider(
            "Budget, % of the pairs",
            1,
            100,
            help="The best pattern is the one that keeps most mass within it.",
            **field(session, "budget"),
        )


def own_controls(session: SparsitySession) -> None:
    """Draw by which rule a head's own mask is read."""
    view = session.view

    def take(kind: str) -> None:
        session.show(replace(session.view, own=kind, own_value=OWN[kind]))

    words = {"mass": "mass", "top_k": "top", "threshold": "weight"}
    with st.container(horizontal=True, key="sparsity_own_row", gap="small"):
        st.segmented_control(
            "Keep by",
            list(words),
            format_func=words.__getitem__,
            label_visibility="collapsed",
            **widget(session, "sparsity_own", view.own, take),
        )
        whole = view.own == "top_k"
        least, most = (1, LONGEST) if whole else (0.000001, 1.0)
        st.number_input(
            _OWN_WORDS[view.own],
            least,
            most,
            step=1 if whole else 0.01,
            format="%d" if whole else "%g",
            label_visibility="collapsed",
            help=_OWN_WORDS[view.own],
            **widget(
                session,
                f"sparsity_own_value_{view.own}",
                int(view.own_value) if whole else min(view.own_value, 1.0),
                lambda value: session.show(replace(session.view, own_value=float(value))),
            ),
        )


_OWN_WORDS = {
    "mass": "Of each query's mass, on the fewest keys that hold it; above 0, at most 1.",
    "top_k": "Keys of each query, those of most weight; 1 or more.",
    "threshold": "The least weight that is kept; above 0, at most 1.",
}
