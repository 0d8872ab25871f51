"""Calculator: will it fit, and where does the memory go?"""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from attnscope.app import calculation_words
from attnscope.app.calculation_files import chart, device_of
from attnscope.app.calculator_view import OWN_DEVICE, CalculatorView
from attnscope.app.components import calculation
from attnscope.app.components.calculator_controls import controls
from attnscope.app.components.model_bar import share
from attnscope.app.components.notice import guarded, notice
from attnscope.app.figures import theme
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.calculations import COMPARED, bundled
from attnscope.app.page_session import Notice
from attnscope.app.state import CalculatorSession
from attnscope.kernels.errors import AttnscopeError
from attnscope.profiling.units import nbytes

_PATIENCE_S = 90.0
_PLOT = {"displaylogo": False, "displayModeBar": False, "typesetMath": False}


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
    answered = _answer(session, devices)
    controls(
        session,
        models=["demo", *bundled()],
        devices={device["name"]: device for device in devices["devices"]},
        backends=dict.fromkeys(COMPARED, "")
        if answered is None
        else {line["name"]: line["title"] for line in answered[1]["lines"]},
    )
    with st.container(key="told", gap="small"):
        for told in session.notices:
            notice(told)
    if answered is not None:
        _draw(session.view, *answered, devices)


def _answer(
    session: CalculatorSession, devices: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What the worker says of the view; of the last one that had an answer where this one has none."""
    for view in (session.view, session.last_good, CalculatorView()):
        try:
            plan, one = view.questions(device_of(view, devices))
            with st.spinner("Building the model's shape", show_time=True):
                curves = engine().ask("curves", plan, timeout_s=_PATIENCE_S)
                answer = engine().ask("calculation", one, timeout_s=_PATIENCE_S)
        except AttnscopeError as error:
            session.tell(*dict.fromkeys((*session.notices, Notice.of(error))))
            continue
        if view != session.view:
            session.show(view)
        session.answered()
        return answer, curves
    return None


def _draw(
    view: CalculatorView,
    answer: dict[str, Any],
    curves: dict[str, Any],
    devices: Mapping[str, Any],
) -> None:
    device = device_of(view, devices)
    room = view.room(device)
    lines = curves["lines"]
    longest = next((line.get("longest", 0) for line in lines if line["name"] == view.backend), 0)
    with st.container(key="verdict", horizontal=True, vertical_alignment="top"):
        with st.container():
            calculation.say_verdict(view, answer, room, longest)
        with st.popover("Export"):
            calculation.files(view, st.context.theme.type or "light")
        with st.popover("Copy as Markdown"):
            st.code(calculation_words.markdown(view, answer, room, longest), language="markdown")
        share()
    look = theme.theme(st.context.theme.type or "light")
    _chart("bar", view, answer, curves, room, look)
    left, right = st.columns([7, 5], gap="medium")
    with left:
        _chart("curves", view, answer, curves, room, look)
    with right:
        calculation.backends(lines, view.backend, answer["model"]["max_length"])
    calculation.terms(view, answer)
    st.html(
        f'<p class="pg-quiet">{view.device}: {nbytes(device["memory_bytes"])}, less a reserve of '
        f"{view.reserve_gib:g} GiB; {device['bandwidth'] / 1e9:g} GB/s. Figures: "
        f"{device['source']}</p>"
        if view.device != OWN_DEVICE
        else '<p class="pg-quiet">The device is as you describe it under More.</p>'
    )


def _chart(
    what: str,
    view: CalculatorView,
    answer: dict[str, Any],
    curves: dict[str, Any],
    room: int,
    look: theme.Theme,
) -> None:
    """Draw a chart without the title and note that it has as a file: the page says both."""
    figure, words = chart(what, view, answer, curves, room, look)
    kept = list(figure.select_annotations())[:-1]
    figure.update_layout(annotations=kept, overwrite=True)
    figure.update_layout(title=None, font_size=12, margin={"l": 72, "r": 16, "t": 32, "b": 44})
    if what == "bar":
        figure.update_layout(height=210, margin={"l": 8, "r": 8})
    figure.update_xaxes(title_font_size=12)
    alt = f"{calculation_words.title(view)}: {words}."
    st.plotly_chart(figure, config=_PLOT, theme=None, key=f"calculator_{what}", alt=alt)
