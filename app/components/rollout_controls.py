"""The controls of the page Rollout: the direction, the layers, and how each of them is mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.components.widget import widget
from attnscope.app.prompts.uploads import shortened
from attnscope.app.state import Key
from attnscope.app.views.rollout import LEAST_WINDOW, MOST_WINDOW, RolloutSession

_DIRECTIONS = {"pays": "came from", "receives": "went to"}
_STACKS = {"decoder": "Decoder, target", "encoder": "Encoder, source"}
_ALL = -1


def controls(
    session: RolloutSession,
    *,
    layers: Sequence[Mapping[str, Any]],
    passed: range,
    prompts: Sequence[str],
) -> None:
    """Draw them; a change is in the view before the page is drawn anew.

    Args:
        session: The visitor's.
        layers: Of the capture's summary.
        passed: Those that are passed.
        prompts: The text of each prompt of the capture.
    """
    several = len(prompts) > 1
    with st.container(key="rollout_controls"):
        widths = [1.75, 1.2, 0.9, 0.9, 1.1, 0.95, 1.15, *([2.0] if several else [])]
        columns = iter(
            st.columns([*widths, max(0.2, 10.0 - sum(widths))], vertical_alignment="bottom")
        )
        with next(columns):
            st.segmented_control(
                "The token",
                list(_DIRECTIONS),
                format_func=_DIRECTIONS.__getitem__,
                required=True,
                help="Came from: of which tokens at the input its representation is made. Went to: in which "
                "representations at the top it has a part, and how large.",
                **_field(session, "direction"),
            )
        with next(columns):
            st.number_input(
                "Attention's part, %",
                0,
                100,
                step=5,
                help="Of a layer's output; the rest is the residual connection. 50 in the paper.",
                **_field(session, "part"),
            )
        with next(columns):
            _layer(session, "first", "From layer", passed.start, range(passed.stop), default=0)
        with next(columns):
            last = len(layers) - 1
            _layer(
                session,
                "last",
                "to layer",
                passed.stop - 1,
                range(passed.start, last + 1),
                default=last,
            )
        with next(columns), st.popover("Heads", width="stretch"):
            _heads(session, layers, passed)
        with next(columns):
            st.checkbox(
                "by value",
                help="Weights heads and tokens by the norms of their values, not by weights alone: what is read "
                "from a short vector counts for little, however large its weight.",
                **_field(session, "by_value"),
            )
        with next(columns):
            st.checkbox(
                "unlit marks",
                help="Leaves the tokenizer's own marks, which often take much of the mass, out of the light; their "
                "shares stay what they are.",
                **_field(session, "hide_special"),
            )
        if several:
            with next(columns):
                st.selectbox(
                    "Prompt",
                    range(len(prompts)),
                    format_func=lambda at: f"{at + 1}. {shortened(prompts[int(at)], 40)}",
                    **_field(session, "sequence", pinned=None),
                )


def stack(session: RolloutSession, shown: str) -> None:
    """Draw the choice of an encoder-decoder's stack."""
    st.segmented_control(
        "Stack",
        list(_STACKS),
        format_func=_STACKS.__getitem__,
        label_visibility="collapsed",
        required=True,
        help="Rollout stays in one stack: attention from the target to the source leads out of it.",
        **widget(
            session,
            Key.ROLLOUT_STACK,
            shown,
            lambda value: session.show(
                replace(session.view, attention=value, pinned=None, first=None, last=None, heads=())
            ),
        ),
    )


def window(session: RolloutSession) -> None:
    """Draw the number of tokens of the flow's network."""
    st.number_input(
        "Tokens of the flow",
        LEAST_WINDOW,
        MOST_WINDOW,
        step=8,
        help="Of its network: those up to the pinned one, or around it where the model sees both ways. The time grows "
        "with their square.",
        **_field(session, "window", flow=False),
    )


def _layer(
    session: RolloutSession, name: str, label: str, shown: int, choices: range, *, default: int
) -> None:
    def take(value: int) -> None:
        session.show(replace(session.view, **{name: None if value == default else value}))

    # Others to choose from are another control: one that stays keeps what it held.
    key = f"rollout_{name}_{choices.start}_{choices.stop}"
    st.selectbox(label, choices, **widget(session, key, shown, take))


def _heads(session: RolloutSession, layers: Sequence[Mapping[str, Any]], passed: range) -> None:
    """A head for each layer that is passed, or the mean of all."""
    chosen = dict(session.view.heads)
    st.caption("A layer is the mean of its heads, or one of them.")
    for layer in passed:
        heads = layers[layer]["heads"]

        def take(head: int, layer: int = layer) -> None:
            others = {at: one for at, one in session.view.heads if at != layer}
            both = others if head == _ALL else {**others, layer: head}
            session.show(replace(session.view, heads=tuple(sorted(both.items()))))

        st.selectbox(
            f"Layer {layer}",
            [_ALL, *range(heads)],
            format_func=lambda head: "all heads" if head == _ALL else f"head {head}",
            **widget(
                session, f"rollout_head_{layer}", min(chosen.get(layer, _ALL), heads - 1), take
            ),
        )


def _field(session: RolloutSession, name: str, **besides: Any) -> dict[str, Any]:
    """The key and callback of a widget of a field; what else changes with it."""
    return widget(
        session,
        f"rollout_{name}",
        getattr(session.view, name),
        lambda value: session.show(replace(session.view, **{name: value, **besides})),
    )
