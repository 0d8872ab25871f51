"""Sparsity: which pattern could this head live with, and what would it cost?"""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from attnscope.app.asking import sparsity as asking
from attnscope.app.asking import sparsity_run as running
from attnscope.app.asking.captures import Shown
from attnscope.app.components import capture_head, sparsity_found, sparsity_run
from attnscope.app.components.capture_head import act
from attnscope.app.components.chart import look
from attnscope.app.components.notice import notice
from attnscope.app.components.sparsity_controls import (
    choice,
    controls,
    head_choice,
    own_controls,
)
from attnscope.app.figures.heads_grid import Heads
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.kept.matrices import KeptMatrices
from attnscope.app.page_session import Notice
from attnscope.app.patterns_offered import IMPLIED_CAUSAL
from attnscope.app.prompts.links import KeptPrompts
from attnscope.app.prompts.uploads import shortened
from attnscope.app.state import Key
from attnscope.app.views.sparsity import APPROXIMATE, SparsitySession, SparsityView
from attnscope.app.words.sparsity import QUIET, Row, best_of, no_mask, pair_told, rows_of
from attnscope.kernels.errors import AttnscopeError, PromptRefused
from attnscope.profiling.units import count, seconds, share

Answer = Mapping[str, Any]


def page(session: SparsitySession, matrices: KeptMatrices, assignments: KeptPrompts) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.
        matrices: Where uploaded matrices lie.
        assignments: Where imported assignments lie.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if capture_head.follow(session):
        session.set_draft({Key.SPARSITY_RULE: session.view.rule})
    capture_head.head(session)
    told = capture_head.told(session)
    shown = session.shown
    if shown is not None and shown.is_pair:
        told(_under_way(session))
        notice(pair_told(shown))
        return
    found = None if shown is None else asking.effects(session, shown)
    best = None if shown is None else asking.fitting(session, shown)
    made = asking.made_for_head(session, best)
    if shown is not None and found is not None and made is not None:
        found = {**found, "made": asking.effect_of(session, shown, made)}
    assigned = _assigned(session, shown, found, best, assignments)
    errors = None if shown is None else asking.errors(session, shown)
    ran = None if shown is None else running.follow_run(session, shown, assigned)
    told(_under_way(session))
    controls(
        session,
        matrices,
        tokens=None if shown is None else shown.tokens,
        causal=asking.is_causal(session, shown),
    )
    if shown is None:
        capture_head.absent(session)
        return
    mask, heads, patterns = st.columns([26, 30, 60], gap="medium")
    with mask:
        _mask(session, shown, best, made)
    if found is None:
        return
    _place_head(session, found)
    with heads:
        _heads(session, shown, found)
        _own_mask(session, shown)
    with patterns:
        _patterns(session, shown, found, best)
    st.html(f'<p class="pg-quiet">{QUIET}</p>')
    _run(session, shown, found, assigned, assignments)
    _errors(session, shown, found, errors)
    if ran is not None:
        sparsity_run.result(ran, model=shown.summary["model"], look=look())


def _under_way(session: SparsitySession) -> JobStatus | None:
    """The job that the visitor waits for: the capture, then a run, then what finds patterns out."""
    capture = session.watched and session.watched.job_id
    working = (work.job for work in session.work.values())
    job = next(filter(None, (capture, session.run_job, *working)), None)
    return None if job is None else engine().status(job)


def _mask(
    session: SparsitySession,
    shown: Shown,
    best: Mapping[str, Any] | None,
    made: Answer | None,
) -> None:
    """The mask of the pattern chosen, or why there is none."""
    view = session.view
    if said := no_mask(view, best, made):
        notice(Notice(kind="told", message=said))
        return
    try:
        with st.spinner("Drawing the mask", show_time=True):
            answer = asking.mask(session, shown, best)
    except AttnscopeError as error:
        notice(Notice.of(error))
        return
    if not answer["header"]["pairs"]:
        said = f"This pattern sees nothing at {count(answer['header']['length'])} tokens."
        notice(Notice(message=said, remedy="Widen it, or change the rule."))
    layers = shown.summary["layers"]
    causal = asking.is_causal(session, shown) or view.pattern in IMPLIED_CAUSAL
    if made is not None:
        layers = [{**layers[view.layer or 0], "heads": 1}]
        causal = asking.hides_future(shown)
    sparsity_found.mask_panel(
        answer,
        layers,
        made=made,
        causal=causal,
        model=shown.summary["model"],
        look=look(),
    )


def _effect(session: SparsitySession, found: Answer) -> Answer:
    """What was found of the pattern chosen, empty before; without a matrix, of the first."""
    if "made" in found:
        return found["made"] or {}
    key = session.view.pattern
    patterns = found["patterns"]
    return next((each for each in patterns if each["asked"]["key"] == key), patterns[0])


def _place_head(session: SparsitySession, found: Answer) -> None:
    """Open the head that the pattern does most harm to, where none was chosen."""
    view, effect = session.view, _effect(session, found)
    placed = view.layer is not None and view.head is not None
    if placed or view.fitted or "refusal" in effect:
        return
    error_LH = np.array(effect["error"], float)
    layer, head = np.unravel_index(np.nanargmax(error_LH), error_LH.shape)
    session.show(replace(view, layer=int(layer), head=int(head)))


def _head_of(session: SparsitySession, found: Answer) -> tuple[int, int, int]:
    """The place of the layer chosen, the model's own number of it, and the head."""
    layer, head = session.view.layer or 0, session.view.head or 0
    return layer, found["layers"][layer], head


def _heads(session: SparsitySession, shown: Shown, found: Answer) -> None:
    """The pattern chosen, on every head."""
    view, effect = session.view, _effect(session, found)
    if not effect:
        return
    if "refusal" in effect:
        notice(Notice(message=effect["refusal"]))
        return
    words = {"mass": "mass kept", "error": "output error"}
    with st.container(key="chart_heads", gap=None):
        sparsity_found.heading("Every head", effect["title"])
        with st.container(horizontal=True, key="sparsity_heads_row", gap="small"):
            choice(session, "measure", {"mass": "mass", "error": "error"})
            choice(session, "order", {"place": "layers", "value": "sorted"})
        values = np.array(effect[view.measure], float)
        _, number, head = _head_of(session, found)
        sparsity_found.grid_panel(
            Heads(
                values=values,
                layers=found["layers"],
                name=words[view.measure],
                chosen=(number, head),
                by_value=view.order == "value",
            ),
            title=f"{shown.summary['model']}: {words[view.measure]}, {effect['title']}",
            note=f"mean {np.nanmean(values):.3g}, least {np.nanmin(values):.3g}, "
            f"largest {np.nanmax(values):.3g} of {np.count_nonzero(~np.isnan(values))} heads",
            model=shown.summary["model"],
            look=look(),
            on_choose=_told_key(session, partial(_choose_head, session, found)),
        )


def _told_key(session: SparsitySession, work: Callable[[str], None]) -> Callable[[str], None]:
    """A callback that is given the key of the widget that changed."""
    return lambda key: act(session, lambda _: work(key))()


def _choose_head(session: SparsitySession, found: Answer, key: str) -> None:
    points = session.draft(key)["selection"]["points"]
    if points:
        layer, head = points[0]["customdata"][:2]
        place = found["layers"].index(int(layer))
        session.show(replace(session.view, layer=place, head=int(head)))


def _own_mask(session: SparsitySession, shown: Shown) -> None:
    """What the head chosen keeps by itself."""
    with st.container(key="chart_own", gap=None):
        sparsity_found.heading("Its own mask", "read off the head's weights")
        own_controls(session)
        try:
            with st.spinner("Reading the head", show_time=True):
                answer = asking.own_mask(session, shown)
        except AttnscopeError as error:
            notice(Notice.of(error))
            return
        view = session.view
        sparsity_found.own_panel(
            answer,
            title=f"{shown.summary['model']}: layer {view.layer or 0}, head {view.head or 0}, kept by "
            f"{view.own.replace('_', ' ')} {view.own_value:g}",
            model=shown.summary["model"],
            look=look(),
        )


def _patterns(
    session: SparsitySession, shown: Shown, found: Answer, best: Mapping[str, Any] | None
) -> None:
    """Every pattern on the head chosen, those fitted to it first."""
    view = session.view
    layer, number, head = _head_of(session, found)
    fitted = asking.fitted(session, best) if best is not None else ()
    rows = rows_of(found["patterns"], fitted, layer, head)
    with st.container(key="sparsity_of_head", horizontal=True, vertical_alignment="center"):
        sparsity_found.heading(f"Layer {number}, head {head}", "every pattern at its numbers")
        _fit_button(session, shown, best)
        head_choice(
            session,
            found["layers"],
            shown.summary["layers"][layer]["heads"],
            [shortened(each["text"] or "", 40) for each in shown.summary["sequences"]],
        )
    if rows:
        at = best_of(rows, view.budget / 100)
        chosen = next((n for n, row in enumerate(rows) if _is_chosen(view, row)), None)
        sparsity_found.patterns_table(
            rows,
            best=at,
            chosen=chosen,
            look=look(),
            on_choose=_told_key(session, partial(_choose_pattern, session, rows, chosen)),
        )
        within = f"{share(view.budget / 100)} of the pairs"
        said = (
            f"No pattern here keeps {within} or fewer."
            if at is None
            else f"Best within {within}: {rows[at].title}, {rows[at].words}."
        )
        st.html(f'<p class="pg-note">{html.escape(said)}</p>')
    _refusals(found["patterns"])


def _is_chosen(view: SparsityView, row: Row) -> bool:
    return row.fitted == view.fitted if view.fitted else row.key == view.pattern


def _fit_button(session: SparsitySession, shown: Shown, best: Mapping[str, Any] | None) -> None:
    """Where fitting takes long, it waits to be asked for."""
    if best is None and not session.view.fit and asking.fit_seconds(shown) > asking.QUICK_FIT_S:
        st.button(
            "Fit to every head",
            on_click=act(session, lambda _: session.show(replace(session.view, fit=True))),
            help=f"Columns and diagonals, sinks and a window, and blocks, made for each head: about "
            f"{seconds(asking.fit_seconds(shown))} on a CPU.",
        )


def _choose_pattern(
    session: SparsitySession, rows: Sequence[Row], chosen: int | None, key: str
) -> None:
    ticked = session.draft(key)["selection"]["rows"]
    # A browser that lags behind the page may send a table that is gone, as it was drawn.
    if not ticked or ticked == [chosen]:
        return
    row, view = rows[ticked[0]], session.view
    session.show(replace(view, pattern=row.key or view.pattern, fitted=row.fitted, zoom=None))


def _refusals(patterns: Sequence[Answer]) -> None:
    """Say which patterns could not be tried on this prompt."""
    refused = [each for each in patterns if "refusal" in each]
    if refused:
        items = "".join(
            f"<li>{html.escape(each['title'])}: {html.escape(each['refusal'])}</li>"
            for each in refused
        )
        st.html(f'<p class="pg-note">Not tried here</p><ul class="pg-reasons">{items}</ul>')


def _assigned(
    session: SparsitySession,
    shown: Shown | None,
    found: Answer | None,
    best: Mapping[str, Any] | None,
    kept: KeptPrompts,
) -> Answer | None:
    """The patterns by head, where the model is to run with them."""
    view = session.view
    if shown is None or found is None or view.run in APPROXIMATE:
        return None
    try:
        if view.run == "pattern":
            if best is None or "made" not in found:
                return None
            return asking.alone(session, shown, best)
        return asking.assigned(session, shown, found, best, kept)
    except PromptRefused:
        session.tell(
            Notice(
                message="The assignment of this link is not kept here.", remedy="Import it again."
            )
        )
    except AttnscopeError as error:
        session.tell(Notice.of(error))
    session.show(replace(session.view, assignment=""))
    return None


def _run(
    session: SparsitySession,
    shown: Shown,
    found: Answer,
    assigned: Answer | None,
    kept: KeptPrompts,
) -> None:
    """What the model is run with, and the button."""
    view = session.view
    refused = view.run == "pattern" and "refusal" in _effect(session, found)
    sparsity_run.form(
        session,
        layers=found["layers"],
        backends=running.exact_backends(capture_head.backends(session)),
        generates=running.generates(shown),
        on_run=act(session, lambda _: _start(session, shown, assigned)),
        disabled=session.run_job is not None or refused or (view.by_head and assigned is None),
    )
    if view.run == "pattern" and "made" in found:
        _, number, head = _head_of(session, found)
        sparsity_run.alone(number, head)
    if view.run == "heads" and assigned is not None:
        safe = re.sub(r"[^A-Za-z0-9.-]+", "-", shown.summary["model"])[:60]
        sparsity_run.assignment(
            assigned["counts"],
            assigned["json"],
            name=f"{safe}_patterns-by-head.json",
            imported=bool(view.assignment),
            on_import=act(session, lambda _: _import(session, shown, kept)),
            on_clear=act(session, lambda _: session.show(replace(session.view, assignment=""))),
        )


def _errors(session: SparsitySession, shown: Shown, found: Answer, errors: Answer | None) -> None:
    """What the approximation that is to be run errs, where one is."""
    run = session.view.run
    if run in APPROXIMATE:
        sparsity_run.idea(run)
    if errors is not None:
        place, model = _head_of(session, found), shown.summary["model"]
        sparsity_run.approximations(errors, run, place=place, model=model, look=look())


def _start(session: SparsitySession, shown: Shown, assigned: Answer | None) -> None:
    session.tell()
    running.start_run(session, shown, assigned)


def _import(session: SparsitySession, shown: Shown, kept: KeptPrompts) -> None:
    session.tell()
    file = session.draft(Key.SPARSITY_IMPORT)
    if file is None:
        return
    text = asking.readable(file.getvalue())
    engine().ask("sparsity_assignment_read", {"capture": shown.capture_id, "json": text})
    session.show(replace(session.view, assignment=kept.keep((text,))))
