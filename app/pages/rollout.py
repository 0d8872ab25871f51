"""Across layers: from which tokens did this token's representation come, through all layers?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.asking import rollout as asking
from attnscope.app.asking.captures import Shown
from attnscope.app.components import capture_head, rollout_controls, rollout_found
from attnscope.app.components.capture_head import act
from attnscope.app.components.chart import look
from attnscope.app.components.lit_text import Light, lit_text
from attnscope.app.components.sparsity_found import heading
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.state import Key
from attnscope.app.views.rollout import RolloutSession
from attnscope.app.words.rollout import BETWEEN_TWO, QUIET, flow_note, through
from attnscope.profiling.units import seconds

Answer = Mapping[str, Any]

_WORDS = {"from": ("came from", "attends to"), "to": ("went into", "is attended to by")}


def page(session: RolloutSession) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    capture_head.follow(session)
    capture_head.head(session)
    told = capture_head.told(session)
    shown = session.shown
    told(_under_way(session))
    if shown is None:
        capture_head.absent(session)
        return
    summary = asking.summary_of(session, shown)
    if shown.is_pair:
        rollout_controls.stack(session, asking.stack_of(session, shown))
    rollout_controls.controls(
        session,
        layers=summary["layers"],
        passed=asking.passed(session, shown),
        prompts=[each["text"] or "" for each in summary["sequences"]],
    )
    _rolled(session, shown, summary)
    told(_under_way(session))


def _under_way(session: RolloutSession) -> JobStatus | None:
    """The job that the visitor waits for: the capture, the token's rollout, the map, the flow."""
    capture = session.watched and session.watched.job_id
    jobs = {kind: work.job for kind, work in session.work.items()}
    kinds = ("rollout", "rollout_map", "rollout_flow")
    job = next(filter(None, (capture, *(jobs.get(kind) for kind in kinds))), None)
    return None if job is None else engine().status(job)


def _rolled(session: RolloutSession, shown: Shown, summary: Answer) -> None:
    """One token through the layers, then all of them, then the flow."""
    sequence, model = summary["sequences"][session.view.sequence], summary["model"]
    tokens = sequence["tokens"]
    pinned = session.view.pinned
    token = len(tokens) - 1 if pinned is None else min(pinned, len(tokens) - 1)
    found = asking.rolled(session, shown, token)
    if found is not None:
        rollout_found.verdict_line(found, tokens, _links(session, shown, found))
        _text(session, sequence, found)
        rollout_found.trail_panel(found, tokens, model=model, look=look())
    whole, beside, numbers = st.columns([38, 42, 40], gap="medium")
    with whole:
        _whole(session, shown, tokens)
    if found is not None:
        with beside:
            flow = _flow(session, shown, found, tokens)
        with numbers:
            rollout_found.table_panel(found, flow, tokens, model=model)
    said = f"{BETWEEN_TWO} {QUIET}" if asking.stack_of(session, shown) == "decoder" else QUIET
    st.html(f'<p class="pg-quiet">{said}</p>')


def _text(session: RolloutSession, sequence: Answer, found: Answer) -> None:
    """The text lit through all layers, and by the last alone; a click pins another token."""
    through_all, alone = _WORDS[found["direction"]]
    hidden = set(sequence["marks"]) if session.view.hide_special else set()
    shown = [n for n, position in enumerate(found["positions"]) if position not in hidden]
    positions = [found["positions"][n] for n in shown]
    lights = [
        Light(
            name=through(found["layers"]),
            words=through_all,
            positions=positions,
            shares=[found["shares"][n] for n in shown],
        ),
        Light(
            name=f"Layer {max(found['layers'])} alone, its weights",
            words=alone,
            positions=positions,
            shares=[found["alone"][n] for n in shown],
        ),
    ]
    chosen = lit_text(sequence, lights, pinned=found["token"], key=Key.ROLLOUT_TEXT)
    if chosen is not None and chosen != found["token"]:
        session.show(replace(session.view, pinned=chosen, flow=False))
        st.rerun()


def _links(session: RolloutSession, shown: Shown, found: Answer) -> list[tuple[str, str]]:
    """The head of each layer that reads the largest pair most, in Inspect."""
    view = replace(session.view, attention=asking.stack_of(session, shown))
    return [
        (
            f"layer {each['layer']}, head {each['head']} ({each['weight']:.2g})",
            view.inspected(each["layer"], each["head"], pinned=each["query"]),
        )
        for each in found["readers"]
    ]


def _whole(session: RolloutSession, shown: Shown, tokens: list[str]) -> None:
    """The map of all tokens, or the way to ask for it where it takes long."""
    found = asking.mapped(session, shown)
    if found is not None:
        layers, model = asking.passed(session, shown), shown.summary["model"]
        rollout_found.map_panel(found, list(layers), tokens, model=model, look=look())
        return
    heading("Every token", "the rollout of each, as a map")
    if not session.view.whole and "rollout_map" not in session.work:
        st.button(
            "Roll out every token",
            on_click=act(session, lambda _: session.show(replace(session.view, whole=True))),
            help=f"About {seconds(asking.seconds_of(session, shown))} on one core.",
        )


def _flow(session: RolloutSession, shown: Shown, found: Answer, tokens: list[str]) -> Answer | None:
    """The flow beside the rollout, or the way to ask for it where it takes long."""
    if found["direction"] == "to":
        heading("Flow beside rollout", "is found to a token: choose “came from”")
        return None
    flow = asking.flowed(session, shown, found["token"])
    with st.container(key="chart_rollout_flow", gap=None):
        heading("Flow beside rollout", "" if flow is None else flow_note(flow))
        with st.container(
            horizontal=True, vertical_alignment="bottom", key="rollout_flow_row", gap="small"
        ):
            rollout_controls.window(session)
            taken = asking.flow_seconds(session, shown, found["token"])
            if flow is None and not session.view.flow and taken > asking.QUICK_S:
                st.button(
                    "Find the flow",
                    on_click=act(session, lambda _: session.show(replace(session.view, flow=True))),
                    help=f"About {seconds(taken)} on one core.",
                )
        if flow is not None:
            model = shown.summary["model"]
            rollout_found.flow_panel(flow, found, tokens, model=model, look=look())
    return flow
