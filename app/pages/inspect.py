"""Inspect: what do the heads attend to? A prompt, every head, one head large, its tokens."""

import html
from collections.abc import Mapping
from dataclasses import replace

import streamlit as st

from attnscope.app.asking import captures as inspections
from attnscope.app.asking.captures import Shown
from attnscope.app.components import capture_head
from attnscope.app.components.capture_head import ended_badly, started, status_of
from attnscope.app.components.inspector import inspector
from attnscope.app.components.notice import control, guarded
from attnscope.app.jobs.access import engine
from attnscope.app.page_session import Notice
from attnscope.app.prompts.uploads import shortened
from attnscope.app.state import Key, Session
from attnscope.app.views.ablation import address_of
from attnscope.app.views.inspect import View, changed, for_inspector
from attnscope.kernels.errors import AttnscopeError

_KINDS = {
    "cross": "Cross-attention",
    "decoder": "Decoder, target",
    "encoder": "Encoder, source",
}


def page(session: Session) -> None:
    """Draw the page for one run of the script.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    capture_head.follow(session)
    _settle_comparison(session)
    _request_comparison(session)
    capture_head.head(session)
    under_way = session.watched or session.comparing
    capture_head.told(session)(under_way and status_of(under_way))
    shown = session.shown
    if shown is not None:
        _inspect(session, shown)
    else:
        capture_head.absent(session)


def _settle_comparison(session: Session) -> None:
    """Take up the capture that stands beside when its job is over."""
    compared = session.comparing
    if compared is None or not status_of(compared).is_over:
        return
    session.comparing = None
    try:
        session.remember(inspections.finished(engine(), compared))
    except AttnscopeError as error:
        session.tell(ended_badly(status_of(compared), error))
        session.show(replace(session.view, compare=""))


def _request_comparison(session: Session) -> None:
    shown, view = session.shown, session.view
    kind, _, named = view.compare.partition(":")
    if kind == "capture" and named not in {each.capture_id for each in session.recent}:
        session.tell(
            Notice(
                message="The capture to compare with is not held in this session.",
                remedy="Run its prompt again, then choose it under compare.",
            )
        )
        session.show(replace(view, compare=""))
    if kind != "backend" or shown is None or shown.view.capture_key != view.capture_key:
        return
    beside = replace(view, backend=named, layer_backends=(), made="", compare="")
    have = any(each.view.capture_key == beside.capture_key for each in session.recent)
    if have or session.comparing is not None:
        return
    try:
        session.comparing = started(session, beside)
    except AttnscopeError as error:
        session.tell(Notice.of(error))
        session.show(replace(view, compare=""))
    _settle_comparison(session)


def _inspect(session: Session, shown: Shown) -> None:
    """Mount the viewer; what the visitor does there becomes the view and the URL."""
    _choose_attention(session, shown)

    def viewer() -> None:
        view = session.view
        beside = {
            each.capture_id: each.view.backend
            for each in session.recent
            if each.capture_id != shown.capture_id and _same_but_backend(each, shown)
        }
        named = view.compare.removeprefix("backend:")
        compare_capture = next((c for c, backend in beside.items() if backend == named), "")
        report = inspector(
            shown.capture_id,
            shown.seen(view.attention),
            for_inspector(view, compare_capture=compare_capture),
            key=Key.INSPECTOR,
            attention=view.attention or shown.attentions[0],
            captures=_others(session, shown),
            on_run_again=lambda: session.forget(shown.capture_id),
        )
        _way_to_ablation(session.view, shown)
        if session.shown is None:
            st.rerun()
        if report is not None:
            _take(session, shown, report, beside)

    st.fragment(guarded(viewer))()


def _way_to_ablation(view: View, shown: Shown) -> None:
    """A line under the head that is large, on what the model loses without it."""
    if view.layer is not None and view.head is not None and not shown.is_pair:
        address = html.escape(address_of(view, view.layer, view.head))
        said = f"What does the model lose without head {view.layer}.{view.head}?"
        st.html(f'<p class="pg-note"><a href="{address}" target="_self">{said}</a></p>')


def _choose_attention(session: Session, shown: Shown) -> None:
    """Which attention of an encoder-decoder is shown; another one is another map, so nothing of the old one stays."""
    if not shown.is_pair:
        return
    session.set_draft({Key.ATTENTION: session.view.attention or shown.attentions[0]})

    def choose() -> None:
        chosen = session.draft(Key.ATTENTION) or shown.attentions[0]
        attention = "" if chosen == shown.attentions[0] else chosen
        places = {"layer": None, "head": None, "region": None, "pinned": None, "compare": ""}
        anew = {**places, "sort": "", "filter": ""}
        session.show(replace(session.view, attention=attention, **anew))

    st.segmented_control(
        "Attention",
        shown.attentions,
        key=Key.ATTENTION,
        format_func=_KINDS.__getitem__,
        label_visibility="collapsed",
        on_change=control(session, choose),
        required=True,
        help="Cross: what the target reads of the source. Decoder and encoder: each text within itself.",
    )


def _take(
    session: Session, shown: Shown, report: Mapping[str, object], beside: Mapping[str, str]
) -> None:
    """Make what the visitor did in the viewer the view; under a run for another capture, all but positions."""
    view = session.view
    if view.capture_key == shown.view.capture_key:
        session.show(changed(view, report, beside))
        return
    session.look(changed(shown.view, report, beside))
    places = {name: getattr(view, name) for name in ("region", "pinned", "sequence", "compare")}
    session.show(replace(changed(view, report, beside), **places))


def _same_but_backend(one: Shown, other: Shown) -> bool:
    """Whether two captures differ in their backend alone, and a link can name the first by it."""
    plain = (replace(each.view, backend="", layer_backends=()).capture_key for each in (one, other))
    return len(set(plain)) == 1 and not one.view.layer_backends


def _others(session: Session, shown: Shown) -> list[dict[str, str]]:
    """The captures that can stand beside: those that hold the same kind of attention."""
    attention = session.view.attention or shown.attentions[0]
    return [
        {"id": each.capture_id, "title": _title(each)}
        for each in session.recent
        if each.capture_id != shown.capture_id and attention in each.attentions
    ]


def _title(shown: Shown) -> str:
    text = shortened(shown.summary["sequences"][0].get("text") or "", 28)
    return f"{shown.summary['backend']} · {shown.summary['model']} · {text}"
