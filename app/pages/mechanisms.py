"""Mechanisms: see, run, measure and explain every way of attending; and which of them to choose."""

import html
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.components import (
    advice,
    mechanism_card,
    mechanism_pictures,
    model_positions,
)
from attnscope.app.components.model_bar import share
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.jobs.access import devices, engine
from attnscope.app.jobs.calculation_plan import bundled
from attnscope.app.mechanisms import GROUPS, Mechanism, catalogue, mechanism
from attnscope.app.page_session import Notice
from attnscope.app.prompts.uploads import typed
from attnscope.app.state import Key
from attnscope.app.views.mechanisms import LISTED, TABS, MechanismsSession, MechanismsView
from attnscope.kernels.errors import AttnscopeError, EngineUnavailable, JobMissing
from attnscope.kernels.patterns.rule_bounds import check
from attnscope.kernels.patterns.rule_program import steps_of

_RESULT_WORDS = {
    "all": "All",
    "exact": "Exact",
    "pattern": "Sparse",
    "approximate": "Approximate",
    "architecture": "Of the model",
}
_ALREADY_CAUSAL = frozenset({"", "causal", "sliding_window", "sinks_window", "chunked"})
_HERE_S, _PATIENCE_S, _ADVICE_S = 2.0, 60.0, 180.0

Act = Callable[[Callable[[MechanismsSession], None]], Callable[[], None]]


def page(session: MechanismsSession) -> None:
    """Draw the page for one run of the script.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    session.follow_url()
    st.fragment(guarded(lambda: _page(session)))()


def _page(session: MechanismsSession) -> None:
    session.set_draft(_drafts(session.view))
    _follow(session)
    with st.container(key="mechanisms_bar", horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Part of the page",
            TABS,
            format_func=str.capitalize,
            label_visibility="collapsed",
            key=Key.MECHANISM_TAB,
            on_change=_act(session, _turn),
        )
        share()
    with st.container(key="told", gap="small"):
        for told in session.notices:
            notice(told)
    parts = {"catalogue": _catalogue, "advisor": _advisor}
    parts[session.view.tab](session)


def _advisor(session: MechanismsSession) -> None:
    """The request, and the answer; while the answer is computed, or cannot be had, it says so."""
    advice.request(
        session.view,
        models=["demo", *bundled()],
        devices=[each["name"] for each in engine().ask("devices", {})["devices"]],
        key=_asked,
        on_change=_act(session, _ask),
    )
    try:
        with st.spinner("Weighing every candidate", show_time=True):
            answer = engine().ask("advice", session.view.asked, timeout_s=_ADVICE_S)
    except AttnscopeError as error:
        notice(Notice.of(error))
        return
    advice.answer(answer)
    advice.measuring(
        on_measure=_act(session, _judge),
        on_change=_act(session, _name),
        is_under_way=session.job is not None,
        again=answer["judged"] is not None,
    )
    _under_way(session, "advice_errors")


def _catalogue(session: MechanismsSession) -> None:
    card, lacking = mechanism(session.view.card), _here()
    listed, opened = st.columns([2, 9], gap="medium")
    with listed:
        _list(session, lacking)
    with opened:
        _card(session, card, lacking.get(card.key, ""))


def _list(session: MechanismsSession, lacking: Mapping[str, str]) -> None:
    """The search, the filters, and a line for every card that passes them."""
    act = _act(session, _filter)
    st.text_input(
        "Search", key=Key.MECHANISM_SEARCH, placeholder="window, Llama, cache", on_change=act
    )
    st.selectbox(
        "Kind",
        LISTED,
        format_func=_RESULT_WORDS.__getitem__,
        key=Key.MECHANISM_RESULT,
        on_change=act,
    )
    st.checkbox("Runs on this machine", key=Key.MECHANISM_HERE, on_change=act)
    cards = [card for card in catalogue() if session.view.lists(card, lacking.get(card.key, ""))]
    with st.container(key="cards", gap=None):
        for group, title in GROUPS.items():
            mine = [card for card in cards if card.group == group]
            if mine:
                st.html(f'<p class="pg-group">{html.escape(title.partition(":")[0])}</p>')
            for card in mine:
                st.button(
                    card.title,
                    key=f"card_{card.key}",
                    type="tertiary",
                    width="stretch",
                    on_click=_act(session, lambda session, key=card.key: _open(session, key)),
                )
    if not cards:
        st.html('<p class="pg-quiet">No mechanism fits. Search for less.</p>')
    st.html(f"<style>.st-key-card_{session.view.card} button {{ font-weight: 650; }}</style>")


def _card(session: MechanismsSession, card: Mechanism, lacking: str) -> None:
    view = session.view
    words, drawn = st.columns([6, 5], gap="medium")
    with words:
        mechanism_card.head(card, lacking)
        st.latex(card.formula)
        mechanism_card.facts(card)
        mechanism_card.claims(card)
    with drawn:
        _drawn(session, card)
    with st.spinner("Calculating", show_time=True):
        costs = engine().ask("mechanism_costs", view.arguments, timeout_s=_PATIENCE_S)
    mechanism_card.costs(card, costs)
    changed = st.container()
    mechanism_card.measurement(
        card,
        _record(view),
        measuring=session.job is not None,
        lacking=lacking,
        on_measure=_act(session, _measure),
    )
    _under_way(session, "mechanism")
    if card.group == "position":
        _positions(session)
    mechanism_card.snippet(card)
    if card.result in ("approximate", "pattern") and card.backends:
        # Above what is drawn already, for it may take seconds.
        with changed:
            _change(view)


def _positions(session: MechanismsSession) -> None:
    """The positions of a model that the visitor names, once they were found."""
    found = engine().ask("positions_found", session.view.positions_asked)["found"]
    model_positions.request(
        session.view,
        models=session.recent,
        devices=devices(),
        on_apply=_act(session, _apply),
        on_change=_act(session, _name),
        on_find=_act(session, _find),
        finding=session.job is not None,
        again=found is not None,
    )
    _under_way(session, "positions")
    if found is not None:
        model_positions.answer(found)


def _under_way(session: MechanismsSession, kind: str) -> None:
    """The progress of the session's job, where it is of this kind."""
    if session.job is None:
        return
    status = engine().status(session.job)
    if status.kind == kind:
        progress(status)


def _drawn(session: MechanismsSession, card: Mechanism) -> None:
    """The mask with its controls, or what stands in its place."""
    if card.figure in mechanism_pictures.DRAWN:
        found = engine().ask("mechanism_picture", {"mechanism": card.key}, timeout_s=_PATIENCE_S)
        mechanism_pictures.picture(card.key, found)
        return
    mechanism_card.mask_controls(
        card.controls,
        has_text=card.has_text,
        offers_causal=card.pattern not in _ALREADY_CAUSAL,
        key=_control,
        on_change=_act(session, _set),
    )
    mechanism_card.mask(card, engine().ask("mechanism_mask", session.view.arguments))


def _change(view: MechanismsView) -> None:
    """What it does to the demo's own output; the worker's business, and no reason to hold up the rest."""
    try:
        with st.spinner("Judging it on the demo model", show_time=True):
            found = engine().ask("mechanism_error", view.arguments, timeout_s=_PATIENCE_S)
    except AttnscopeError as error:
        notice(Notice.of(error))
    else:
        mechanism_card.change(found)


def _here() -> Mapping[str, str]:
    """Why each mechanism does not run on the worker's device; nothing while the worker starts."""
    with suppress(EngineUnavailable):
        return engine().ask("mechanisms_here", {}, timeout_s=_HERE_S)["reasons"]
    return {}


def _record(view: MechanismsView) -> Mapping[str, Any] | None:
    """The newest measurement of the card as it is set."""
    records = engine().ask("mechanism_measured", {"mechanism": view.card})["records"]
    mine = (
        record
        for record in reversed(records)
        if (record["values"], record["causal"]) == (view.arguments["values"], view.causal)
    )
    return next(mine, None)


def _follow(session: MechanismsSession) -> None:
    """Join the job about what is shown, and take it up when it is over."""
    if session.job is None:
        view = session.view
        asked = {
            "mechanism": view.arguments,
            "positions": view.positions_asked,
            "advice_errors": view.errors_asked,
        }
        found = (
            engine().under_way(kind, each, owner=session.owner) for kind, each in asked.items()
        )
        session.job = next(filter(None, found), None)
        return
    try:
        status = engine().status(session.job)
    except JobMissing:
        session.job = None
        return
    if not status.is_over:
        return
    session.job = None
    if status.state == "cancelled":
        session.tell(Notice(kind="told", message="Cancelled; nothing was kept of it."))
    elif status.state == "failed":
        session.tell(
            Notice(
                kind="failed" if status.reference else "refused",
                message=status.reason,
                remedy=status.remedy,
                reference=status.reference,
            )
        )


# What the visitor's controls do; each runs before the page is drawn anew


def _act(
    session: MechanismsSession, work: Callable[[MechanismsSession], None]
) -> Callable[[], None]:
    def run() -> None:
        session.tell()
        work(session)

    return control(session, run)


def _turn(session: MechanismsSession) -> None:
    session.show(replace(session.view, tab=session.draft(Key.MECHANISM_TAB) or session.view.tab))


def _ask(session: MechanismsSession) -> None:
    fields = {name: session.draft(_asked(name)) for name in advice.FIELDS}
    given = {name: value for name, value in fields.items() if value is not None}
    session.show(replace(session.view, **given))


def _open(session: MechanismsSession, key: str) -> None:
    session.job = None
    session.show(replace(session.view, card=key, values=(), causal=False, rule=""))


def _filter(session: MechanismsSession) -> None:
    session.show(
        replace(
            session.view,
            search=str(session.draft(Key.MECHANISM_SEARCH, "")).strip()[:80],
            result=session.draft(Key.MECHANISM_RESULT, "all"),
            here=bool(session.draft(Key.MECHANISM_HERE, False)),
        )
    )


def _set(session: MechanismsSession) -> None:
    card = mechanism(session.view.card)
    values = {
        control.name: session.draft(_control(control.name), control.default)
        for control in card.controls
    }
    changed = tuple(
        sorted(
            (control.name, values[control.name])
            for control in card.controls
            if values[control.name] != control.default
        )
    )
    causal = bool(session.draft(Key.MECHANISM_CAUSAL, False))
    rule = _written(session, card)
    session.show(replace(session.view, values=changed, causal=causal, rule=rule))


def _written(session: MechanismsSession, card: Mechanism) -> str:
    """The rule in the card's box; the card's own is none of the view's."""
    if not card.has_text:
        return ""
    text = " ".join(str(session.draft(Key.MECHANISM_RULE) or "").split())
    check(steps_of(text))
    return "" if text == card.fixed["text"] else text


def _measure(session: MechanismsSession) -> None:
    session.job = engine().submit("mechanism", session.view.arguments, owner=session.owner)


def _name(session: MechanismsSession) -> None:
    text = " ".join(str(session.draft(Key.MECHANISM_PROMPT) or "").split())
    session.show(replace(session.view, prompt=typed(text).text if text else ""))


def _apply(session: MechanismsSession) -> None:
    session.show(
        replace(
            session.view,
            on=str(session.draft(Key.SOURCE) or "").strip() or "demo",
            on_revision=str(session.draft(Key.REVISION) or "").strip(),
            on_device=session.draft(Key.DEVICE) or "auto",
            on_dtype=session.draft(Key.DTYPE) or "auto",
        )
    )


def _find(session: MechanismsSession) -> None:
    session.job = engine().submit("positions", session.view.positions_asked, owner=session.owner)


def _judge(session: MechanismsSession) -> None:
    session.job = engine().submit("advice_errors", session.view.errors_asked, owner=session.owner)


def _control(name: str) -> str:
    return f"mechanism_set_{name}"


def _asked(name: str) -> str:
    return f"mechanism_asked_{name}"


def _drafts(view: MechanismsView) -> dict[str, Any]:
    controls = {control.name: control.default for control in mechanism(view.card).controls}
    return {
        Key.MECHANISM_TAB: view.tab,
        Key.MECHANISM_SEARCH: view.search,
        Key.MECHANISM_RESULT: view.result,
        Key.MECHANISM_HERE: view.here,
        Key.MECHANISM_CAUSAL: view.causal,
        Key.SOURCE: view.on,
        Key.REVISION: view.on_revision,
        Key.DEVICE: view.on_device,
        Key.DTYPE: view.on_dtype,
        Key.MECHANISM_PROMPT: view.prompt,
        Key.MECHANISM_RULE: view.rule or mechanism(view.card).fixed.get("text", ""),
        **{_asked(name): getattr(view, name) for name in advice.FIELDS},
        **{_control(name): value for name, value in (controls | dict(view.values)).items()},
    }
