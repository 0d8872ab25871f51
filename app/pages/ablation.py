"""Ablation: which heads does this model need for this text?"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from attnscope.app.asking import ablation as asking
from attnscope.app.asking.captures import Shown
from attnscope.app.components import ablation_controls, ablation_found, capture_head
from attnscope.app.components.capture_head import act
from attnscope.app.components.chart import look
from attnscope.app.components.notice import notice
from attnscope.app.components.sparsity_found import heading
from attnscope.app.figures.ablation import TokenLosses
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.prompts.uploads import shortened
from attnscope.app.state import Key
from attnscope.app.views.ablation import AblationSession
from attnscope.app.words.ablation import ablated_verdict, pair_told, swept_verdict, token_words
from attnscope.profiling.units import count, seconds

Answer = Mapping[str, Any]

_MOST_LINKS = 6


def page(session: AblationSession) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if capture_head.follow(session):
        ablation_controls.fill_texts(session)
    capture_head.head(session)
    told = capture_head.told(session)
    shown = session.shown
    if shown is not None and shown.is_pair:
        told(_under_way(session))
        notice(pair_told(shown))
        return
    found = swept = None
    if shown is not None:
        # The heads chosen first: they take a moment, and every head may take minutes.
        found, swept = asking.ablated(session, shown), asking.swept(session, shown)
        if swept is not None and not session.view.heads:
            layer, head = swept["order"][-1]
            _choose(session, [(layer, head)])
            found = asking.ablated(session, shown)
    told(_under_way(session))
    sequences = [] if shown is None else shown.summary["sequences"]
    ablation_controls.controls(session, [shortened(each["text"] or "", 40) for each in sequences])
    if shown is None:
        capture_head.absent(session)
        return
    _swept(session, shown, swept)
    if found is not None:
        _ablated(session, shown, found)


def _under_way(session: AblationSession) -> JobStatus | None:
    """The job that the visitor waits for: the capture, then what the heads chosen do, then the sweep."""
    capture = session.watched and session.watched.job_id
    jobs = {kind: work.job for kind, work in session.work.items()}
    job = next(filter(None, (capture, jobs.get("ablation"), jobs.get("ablation_sweep"))), None)
    return None if job is None else engine().status(job)


def _swept(session: AblationSession, shown: Shown, found: Answer | None) -> None:
    """Every head, and how many can go; or the way to ask for it where it takes long."""
    view, model = session.view, shown.summary["model"]
    if found is None:
        if not asking.is_sweeping(session):
            st.button(
                "Sweep every head",
                type="primary",
                on_click=act(session, lambda _: asking.ask_for_sweep(session)),
                help="Each head ablated by itself, each layer, and ever more heads together: about "
                f"{seconds(asking.sweep_seconds(shown))} here.",
            )
        return
    said = html.escape(swept_verdict(found, view.rise))
    st.html(f'<p class="pg-verdict" role="status">{said}</p>')
    heads, curve = st.columns([46, 74], gap="medium")
    with heads, st.container(key="chart_ablation_heads", gap=None):
        heading("Every head, alone", "how much the loss rises without it")
        ablation_controls.measure(session)
        ablation_found.grid_panel(
            found,
            measure=view.measure,
            chosen=view.heads,
            model=model,
            look=look(),
            on_choose=act(session, lambda _: _choose_clicked(session, shown)),
        )
    with curve, st.container(key="chart_ablation_curve", gap=None):
        heading("Ever more heads", "the loss with all of them gone that are missed least")
        ablation_found.curve_panel(found, view.rise, model=model, look=look())


def _ablated(session: AblationSession, shown: Shown, found: Answer) -> None:
    """What the heads chosen do to the text."""
    view, model = session.view, shown.summary["model"]
    said = ablated_verdict(found, view.heads, view.way, view.rule)
    links = [
        (f"{layer}.{head}", view.inspected(layer, head)) for layer, head in view.heads[:_MOST_LINKS]
    ]
    ablation_found.verdict(said, found, links, model=model)
    tokens = shown.summary["sequences"][view.sequence]["tokens"]
    losses = _losses(session, tokens, found)
    table, pinned, following = st.columns([40, 40, 40], gap="medium")
    with table:
        ablation_found.numbers(found)
    assert losses.pinned is not None
    token = token_words(tokens[losses.pinned])
    with pinned, st.container(key="chart_ablation_pinned", gap=None):
        where = f"in place of “{token}”, position {count(losses.pinned)}"
        heading("Pinned" if view.pinned == losses.pinned else "Moved most", where)
        with st.container(key="ablation_pinned_row", horizontal=True):
            ablation_controls.position(session, losses.pinned, losses.scored)
        place = found["scored"].index(losses.pinned)
        ablation_found.candidates(
            found, place, "pinned", f"predicted {where}", model=model, look=look()
        )
    if not found["hidden"]:
        with following, st.container(key="chart_ablation_next", gap=None):
            heading("The next token", "after the text")
            ablation_found.candidates(
                found,
                len(found["next"]) - 1,
                "next-token",
                "the next token",
                model=model,
                look=look(),
            )
    with st.container(key="chart_ablation_text", gap=None):
        ablation_found.strip(
            losses,
            said=said,
            model=model,
            look=look(),
            on_choose=act(session, lambda _: _pin_clicked(session)),
        )


def _losses(session: AblationSession, tokens: Sequence[str], found: Answer) -> TokenLosses:
    """The loss of every token, and the one looked at: the pinned one, else the one that moved most."""
    before, after = found["losses"]
    change = np.abs(np.subtract(after, before))
    most = found["scored"][int(change.argmax())]
    pinned = session.view.pinned
    return TokenLosses(
        tokens=tokens,
        scored=found["scored"],
        before=before,
        after=after,
        pinned=pinned if pinned in found["scored"] else most,
    )


# What the visitor's controls do; each runs before the page is drawn anew


def _choose(session: AblationSession, heads: Iterable[tuple[int, int]]) -> None:
    session.show(replace(session.view, heads=tuple(sorted(heads))))
    ablation_controls.fill_texts(session)


def _choose_clicked(session: AblationSession, shown: Shown) -> None:
    """Take the head that was clicked into the choice, or out of it; of a layer all."""
    points = session.draft(Key.ABLATION_GRID)["selection"]["points"]
    if not points:
        return
    layer, head = map(int, points[0]["customdata"][:2])
    every = range(shown.summary["layers"][layer]["heads"])
    clicked = {(layer, head)} if head >= 0 else {(layer, at) for at in every}
    chosen = set(session.view.heads)
    session.tell()
    _choose(session, chosen - clicked if clicked <= chosen else chosen | clicked)


def _pin_clicked(session: AblationSession) -> None:
    points = session.draft(Key.ABLATION_TEXT)["selection"]["points"]
    if points:
        session.show(replace(session.view, pinned=int(points[0]["customdata"][0])))
