"""Sparsity: which pattern could this head live with, and what would it cost?"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import numpy as np
import streamlit as st

from attnscope.app.components import capture_head, sparsity_found
from attnscope.app.components.capture_head import act, ended_badly
from attnscope.app.components.chart import look
from attnscope.app.components.notice import notice
from attnscope.app.components.sparsity_controls import choice, controls, head_choice
from attnscope.app.figures.heads_grid import Heads
from attnscope.app.inspections import Shown
from attnscope.app.jobs.access import engine
from attnscope.app.kept_matrices import KeptMatrices
from attnscope.app.page_session import Notice
from attnscope.app.patterns_offered import IMPLIED_CAUSAL
from attnscope.app.sparsity_view import SparsitySession
from attnscope.app.sparsity_words import QUIET, best_at, effect_words
from attnscope.app.state import Key
from attnscope.kernels.errors import AttnscopeError
from attnscope.profiling.units import count, share

Answer = Mapping[str, Any]

_PATIENCE_S = 120.0
_MOMENT_S = 1.5


def page(session: SparsitySession, kept: KeptMatrices) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.
        kept: Where uploaded matrices lie.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if capture_head.follow(session):
        session.set_draft({Key.SPARSITY_RULE: session.view.rule})
    capture_head.head(session)
    shown = session.shown
    found = None if shown is None else _effects(session, shown)
    under_way = session.watched.job_id if session.watched else session.job
    capture_head.told(session, engine().status(under_way) if under_way else None)
    controls(session, kept, tokens=None if shown is None else shown.tokens)
    if shown is None:
        capture_head.absent(session)
        return
    mask, heads, patterns = st.columns([26, 30, 60], gap="medium")
    with mask:
        _mask(session, shown)
    if found is not None:
        _place_head(session, found)
        with heads:
            _heads(session, shown, found)
        with patterns:
            _patterns(session, found)
    st.html(f'<p class="pg-quiet">{QUIET}</p>')


def _mask(session: SparsitySession, shown: Shown) -> None:
    """The mask at its length, or why there is none."""
    view = session.view
    asked = {
        "pattern": view.chosen,
        "length": view.length or shown.tokens,
        "block": view.block,
        "zoom": view.zoom,
    }
    answer = session.held(Key.SPARSITY_MASK, asked)
    if answer is None:
        if view.pattern == "matrix" and not view.matrix:
            said = "Upload a matrix of booleans, and it is a pattern like the others."
            notice(Notice(kind="told", message=said))
            return
        try:
            with st.spinner("Drawing the mask", show_time=True):
                answer = engine().ask("sparsity_mask", asked, timeout_s=_PATIENCE_S)
        except AttnscopeError as error:
            notice(Notice.of(error))
            return
        session.hold(Key.SPARSITY_MASK, asked, answer)
    if not answer["header"]["pairs"]:
        said = f"This pattern sees nothing at {count(asked['length'])} tokens."
        notice(Notice(message=said, remedy="Widen it, or change the rule."))
    sparsity_found.mask_panel(
        answer,
        shown.summary["layers"],
        causal=view.causal or view.pattern in IMPLIED_CAUSAL,
        model=shown.summary["model"],
        look=look(),
    )


def _effects(session: SparsitySession, shown: Shown) -> Answer | None:
    """What every pattern does to every head; None while that is not known."""
    view = session.view
    # A model that hides the future does so under every pattern.
    causal = view.causal and not _is_causal(shown)
    asked = {
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "patterns": [view.described(key, causal=causal) for key in view.compared],
    }
    found = session.held(Key.SPARSITY_EFFECTS, asked)
    if found is None and session.held(Key.SPARSITY_FAILED, asked) is None:
        found = _tried(session, asked)
    return found


def _tried(session: SparsitySession, asked: Mapping[str, Any]) -> Answer | None:
    """Wait a moment for the job of these patterns; a longer one is watched."""
    job = session.job
    if job is not None and session.held(Key.SPARSITY_ASKED, asked) is None:
        engine().cancel(job)
        job = None
    if job is None:
        arguments = dict(asked)
        known = engine().under_way("sparsity_effects", arguments, owner=session.owner)
        job = known or engine().submit("sparsity_effects", arguments, owner=session.owner)
        session.job = job
        session.hold(Key.SPARSITY_ASKED, asked, job)
    patience = monotonic() + _MOMENT_S
    while not engine().status(job).is_over and monotonic() < patience:
        sleep(0.02)
    if not engine().status(job).is_over:
        return None
    session.job = None
    try:
        found = engine().result(job)
    except AttnscopeError as error:
        session.hold(Key.SPARSITY_FAILED, asked, job)
        session.tell(ended_badly(engine().status(job), error))
        return None
    session.hold(Key.SPARSITY_EFFECTS, asked, found)
    return found


def _is_causal(shown: Shown) -> bool:
    return any(
        "causal" in (layer["pattern"]["key"], *layer["pattern"]["parameters"])
        or layer["pattern"]["key"] in IMPLIED_CAUSAL
        for layer in shown.summary["layers"]
    )


def _tables(found: Answer) -> list[Answer]:
    """The patterns that could be tried."""
    return [each for each in found["patterns"] if "refusal" not in each]


def _chosen(session: SparsitySession, found: Answer) -> Answer | None:
    return next(
        (each for each in _tables(found) if each["asked"]["key"] == session.view.pattern), None
    )


def _place_head(session: SparsitySession, found: Answer) -> None:
    """Open the head that the pattern does most harm to, where none was chosen."""
    view = session.view
    if view.layer is not None and view.head is not None:
        return
    effect = _chosen(session, found) or next(iter(_tables(found)), None)
    if effect is None:
        return
    error_LH = np.array(effect["error"], float)
    layer, head = np.unravel_index(np.nanargmax(error_LH), error_LH.shape)
    session.show(replace(view, layer=int(layer), head=int(head)))


def _heads(session: SparsitySession, shown: Shown, found: Answer) -> None:
    """The pattern chosen, on every head."""
    effect = _chosen(session, found)
    if effect is None:
        refused = next(
            (each for each in found["patterns"] if each["asked"]["key"] == session.view.pattern),
            None,
        )
        if refused is not None:
            notice(Notice(message=refused["refusal"]))
        return
    view = session.view
    words = {"mass": "mass kept", "error": "output error"}
    with st.container(key="chart_heads", gap=None):
        sparsity_found.heading("Every head", effect["title"])
        with st.container(horizontal=True, key="sparsity_heads_row", gap="small"):
            choice(session, "measure", {"mass": "mass", "error": "error"})
            choice(session, "order", {"place": "layers", "value": "sorted"})
        values = np.array(effect[view.measure], float)
        heads = Heads(
            values=values,
            layers=found["layers"],
            name=words[view.measure],
            chosen=_head_of(session, found),
            by_value=view.order == "value",
        )
        sparsity_found.grid_panel(
            heads,
            title=f"{shown.summary['model']}: {words[view.measure]}, {effect['title']}",
            note=f"mean {np.nanmean(values):.3g}, least {np.nanmin(values):.3g}, "
            f"largest {np.nanmax(values):.3g} of {np.count_nonzero(~np.isnan(values))} heads",
            model=shown.summary["model"],
            look=look(),
            on_choose=lambda key: act(session, lambda _: _choose_head(session, found, key))(),
        )


def _head_of(session: SparsitySession, found: Answer) -> tuple[int, int]:
    layer, head = session.view.layer or 0, session.view.head or 0
    return found["layers"][layer], head


def _choose_head(session: SparsitySession, found: Answer, key: str) -> None:
    points = session.draft(key)["selection"]["points"]
    if points:
        layer, head = points[0]["customdata"][:2]
        place = found["layers"].index(int(layer))
        session.show(replace(session.view, layer=place, head=int(head)))


def _patterns(session: SparsitySession, found: Answer) -> None:
    """Every pattern on the head chosen."""
    view, effects = session.view, _tables(found)
    layer, head = view.layer or 0, view.head or 0
    best = best_at(effects, view.budget / 100, layer, head)
    at = next((n for n, each in enumerate(effects) if each["asked"]["key"] == view.pattern), None)
    number, _ = _head_of(session, found)
    with st.container(key="sparsity_of_head", horizontal=True, vertical_alignment="center"):
        sparsity_found.heading(f"Layer {number}, head {head}", "every pattern at its numbers")
        head_choice(session, found["layers"], len(effects[0]["mass"][layer]))
    sparsity_found.patterns_table(
        effects,
        layer=layer,
        head=head,
        best=best,
        chosen=at,
        look=look(),
        on_choose=lambda key: act(session, lambda _: _choose_pattern(session, effects, key))(),
    )
    _refusals(found["patterns"])
    if best is not None:
        words = effect_words(effects[best], layer, head)
        st.html(
            f'<p class="pg-note">Best within {share(view.budget / 100)} of the pairs: '
            f"{html.escape(effects[best]['title'])}, {words}.</p>"
        )


def _choose_pattern(session: SparsitySession, effects: Sequence[Answer], key: str) -> None:
    rows = session.draft(key)["selection"]["rows"]
    if rows:
        session.show(replace(session.view, pattern=effects[rows[0]]["asked"]["key"], zoom=None))


def _refusals(patterns: Sequence[Answer]) -> None:
    """Say which patterns could not be tried on this prompt."""
    refused = [each for each in patterns if "refusal" in each]
    if refused:
        items = "".join(
            f"<li>{html.escape(each['title'])}: {html.escape(each['refusal'])}</li>"
            for each in refused
        )
        st.html(f'<p class="pg-note">Not tried here</p><ul class="pg-reasons">{items}</ul>')
