"""Calculator: will it fit, and where does the memory go?"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from attnscope.app.components import calculation
from attnscope.app.components.calculation_check import check
from attnscope.app.components.calculation_history import history
from attnscope.app.components.calculator_controls import controls
from attnscope.app.components.calculator_panel import calculator_panel
from attnscope.app.components.model_bar import share
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.figures import theme
from attnscope.app.files.calculation import Calculated, chart, device_of
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.calculation_plan import bundled
from attnscope.app.page_session import Notice
from attnscope.app.state import CalculatorSession, Key
from attnscope.app.views.calculator import OWN_DEVICE, CalculatorView, encode, parse
from attnscope.app.words import calculation as calculation_words
from attnscope.app.words.calculator_panel import panel
from attnscope.kernels.errors import AttnscopeError, JobMissing
from attnscope.profiling.units import nbytes

_PATIENCE_S = 90.0
_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}
_HEADINGS = {
    "memory": "Memory over length",
    "time": "Time over length, at least",
    "cost": "A million tokens over length, at least",
}


def page(session: CalculatorSession) -> None:
    """Draw the page for one run of the script.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    session.follow_url()
    st.fragment(guarded(lambda: _calculator(session)))()


def _calculator(session: CalculatorSession) -> None:
    devices = engine().ask("devices", {})
    found = _found(session, devices)
    controls(
        session,
        models=["demo", *bundled()],
        devices={device["name"]: device for device in devices["devices"]},
        backends={}
        if found is None
        else {line["name"]: line["title"] for line in found.reach["lines"]},
    )
    with st.container(key="told", gap="small"):
        for told in session.notices:
            notice(told)
    if found is not None:
        _draw(session, found)
        guarded(lambda: _check(session, found))()
        guarded(lambda: _history(found))()


def _found(session: CalculatorSession, devices: Mapping[str, Any]) -> Calculated | None:
    """What the worker says of the view; of the last one that had an answer where this one has none."""
    for view in (session.view, session.last_good, CalculatorView()):
        try:
            found = _asked(view, device_of(view, devices))
        except AttnscopeError as error:
            session.tell(*dict.fromkeys((*session.notices, Notice.of(error))))
            continue
        if view != session.view:
            session.show(view)
        session.answered()
        return found
    return None


def _asked(view: CalculatorView, device: Mapping[str, Any]) -> Calculated:
    plan, one = view.questions(device)
    ask = partial(engine().ask, timeout_s=_PATIENCE_S)
    with st.spinner("Building the model's shape", show_time=True):
        return Calculated(
            view=view,
            device=device,
            one=ask("calculation", one),
            reach=ask("reach", plan),
            curves=ask("curves", plan),
            contenders=ask("contenders", {**plan, "length": view.length}),
        )


def _draw(session: CalculatorSession, found: Calculated) -> None:
    def take() -> None:
        held = session.draft(Key.PANEL)["set"]
        chosen = {name: str(held[name]) for name in ("length", "batch")}
        view, unusable = parse({**encode(session.view.changed()), **chosen})
        session.tell(*(Notice(message=text) for text in unusable))
        session.show(view)

    view, name = found.view, st.context.theme.type or "light"
    with st.container(key="verdict"):
        told = panel(view, found.one, found.reach, found.room)
        calculator_panel(view, told, on_set=control(session, take))
        with st.container(key="verdict_files", horizontal=True, gap="small"):
            with st.popover("Export"):
                calculation.files(found, name)
            with st.popover("Copy as Markdown"):
                words = calculation_words.markdown(view, found.one, found.reach, found.room)
                st.code(words, language="markdown")
            share()
    drawn = found.charts[1:]
    for column, what in zip(st.columns(len(drawn), gap="medium"), drawn, strict=True):
        with column:
            _chart(what, found, theme.theme(name))
    calculation.backends(found)
    calculation.terms(view, found.one)
    device = found.device
    st.html(
        f'<p class="pg-quiet">{view.device}: {nbytes(device["memory_bytes"])}, less a reserve of '
        f"{view.reserve_gib:g} GiB; {device['bandwidth'] / 1e9:g} GB/s. Figures: "
        f"{device['source']}</p>"
        if view.device != OWN_DEVICE
        else '<p class="pg-quiet">The device is as you describe it under More.</p>'
    )


def _check(session: CalculatorSession, found: Calculated) -> None:
    """The check of this very view, where one was asked for."""

    def start() -> None:
        _, one = found.view.questions(found.device)
        known = engine().under_way("check", one, owner=session.owner)
        job = known or engine().submit("check", one, owner=session.owner)
        session.show(replace(session.view, check=job))

    status, result = None, None
    if session.view.check:
        try:
            status = engine().status(session.view.check)
            result = engine().result(status.id) if status.state == "done" else None
        except JobMissing:
            session.show(session.view.changed())
            notice(Notice(message="This check is not on this server any more.", kind="told"))
    check(status, result, on_start=control(session, start))


def _history(found: Calculated) -> None:
    """What the history has of this model, or why it cannot be read."""
    _, one = found.view.questions(found.device)
    history(found.view, engine().ask("measured", one))


def _chart(what: str, found: Calculated, look: theme.Theme) -> None:
    """Draw a chart without what it has as a file alone: its own title, and the key that the table of backends is."""
    figure, words = chart(what, found, look)
    figure.update_layout(annotations=list(figure.select_annotations())[:-1], overwrite=True)
    figure.update_layout(
        title=None, font_size=12, margin={"l": 72, "r": 16, "t": 16, "b": 44}, showlegend=False
    )
    figure.update_layout(height=340)
    figure.update_xaxes(title_font_size=12)
    st.html(f'<h2 class="pg-heading">{_HEADINGS[what]}</h2>')
    alt = f"{_HEADINGS[what]}. {found.title}: {words}."
    st.plotly_chart(figure, config=_PLOT, theme=None, key=f"calculator_{what}", alt=alt)
