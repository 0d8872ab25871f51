"""What is hidden where, and how attention runs: the controls of the page Needle; all act when Run is pressed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.model_bar import facts_line, model_choice, share
from attnscope.app.components.notice import control
from attnscope.app.needles_offered import (
    LONGEST,
    MOST_SEEDS,
    MOST_SINKS,
    PATTERNS,
    TASKS,
    Setting,
    write_numbers,
)
from attnscope.app.prompts.uploads import LIMITS, SUFFIXES, uploaded
from attnscope.app.state import Key
from attnscope.app.views.needle import NeedleSession, NeedleView
from attnscope.app.words import needle as words
from attnscope.profiling.units import count, nbytes

Told = Mapping[str, Any]

FIRST = (Key.NEEDLE_BACKEND, Key.NEEDLE_PATTERN, Key.NEEDLE_WINDOW, Key.NEEDLE_SINKS)
BESIDE = (
    Key.NEEDLE_BESIDE_BACKEND,
    Key.NEEDLE_BESIDE_PATTERN,
    Key.NEEDLE_BESIDE_WINDOW,
    Key.NEEDLE_BESIDE_SINKS,
)
_RECEIVED_MIB = 64


def bar(
    view: NeedleView,
    offered: Told | None,
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
) -> None:
    """Draw which model is looked at; its form fills the drafts of `Key` and calls `on_apply`.

    Args:
        view: What was asked for.
        offered: The answer to `check_offered`; None where there is none.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when the form is sent.
    """
    shape = f" · {offered['layers']} layers" if offered else ""
    limit = offered["max_length"] if offered else None
    facts = [
        ("model", f"{view.model}{shape}", offered["architecture"] if offered else view.model),
        ("revision", view.revision[:10], view.revision),
        ("device", offered["device"] if offered else view.device, "where it runs"),
        ("dtype", view.dtype, "of weights, queries, keys and values"),
        ("reads", f"{count(limit)} tokens" if limit else "", "the limit of its positions"),
    ]
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(facts_line([fact for fact in facts if fact[1]]))
        with (
            st.popover("Model", key="needle_model_popover"),
            st.form("needle_model", border=False),
        ):
            model_choice(view, models=models, devices=devices)
            st.form_submit_button("Apply", type="primary", on_click=on_apply, width="stretch")
        share()


def controls(
    session: NeedleSession, backends: Sequence[str], *, on_run: Callable[[], None], disabled: bool
) -> None:
    """Draw the grid's numbers, how attention runs, the haystack, and the button.

    Args:
        session: The visitor's.
        backends: Names of those that run here.
        on_run: Called before the rerun when the button is pressed.
        disabled: Whether a run is under way.
    """
    # What stands in a popover reaches the browser when it is opened, with the values set in the latest run alone.
    in_popovers = (*FIRST, *BESIDE, Key.NEEDLE_BESIDE, Key.NEEDLE_TEXT)
    session.set_draft({key: session.draft(key) for key in in_popovers})
    with st.container(key="needle_controls"):
        columns = st.columns([1.5, 1.7, 1.5, 0.9, 1.3, 1.3, 1.2, 0.9], vertical_alignment="bottom")
        with columns[0]:
            st.selectbox(
                "What is hidden",
                list(TASKS),
                key=Key.NEEDLE_TASK,
                format_func=TASKS.__getitem__,
                help="\n\n".join(f"{TASKS[each]}: {words.TASKS[each]}" for each in TASKS),
            )
        columns[1].text_input(
            "Lengths, tokens", key=Key.NEEDLE_LENGTHS, help="Of the prompt, question included."
        )
        columns[2].text_input(
            "Depths, %",
            key=Key.NEEDLE_DEPTHS,
            help="Of what lies round the needle, the share before it.",
        )
        columns[3].number_input(
            "Trials a cell",
            1,
            MOST_SEEDS,
            key=Key.NEEDLE_SEEDS,
            help="Each with a seed of its own.",
        )
        with columns[4], st.popover("Attention", width="stretch"):
            _setting(session, FIRST, backends)
        with columns[5], st.popover("Beside it", width="stretch"):
            st.checkbox("A second grid, for comparison", key=Key.NEEDLE_BESIDE)
            compares = bool(session.draft(Key.NEEDLE_BESIDE))
            _setting(session, BESIDE, backends, disabled=not compares)
        with columns[6], st.popover("Haystack", width="stretch"):
            _haystack(session)
        columns[7].button(
            "Run", type="primary", on_click=on_run, disabled=disabled, width="stretch"
        )


def drafts_of(view: NeedleView, haystack: str) -> dict[Key, Any]:
    """What the controls hold when they show a view."""
    beside = view.beside or Setting(pattern="sinks_window")
    return {
        Key.SOURCE: view.model,
        Key.REVISION: view.revision,
        Key.DEVICE: view.device,
        Key.DTYPE: view.dtype,
        Key.NEEDLE_TASK: view.task,
        Key.NEEDLE_LENGTHS: write_numbers(view.lengths),
        Key.NEEDLE_DEPTHS: write_numbers(view.depths),
        Key.NEEDLE_SEEDS: view.seeds,
        Key.NEEDLE_TEXT: haystack,
        Key.NEEDLE_BESIDE: view.beside is not None,
        **_drafts(FIRST, view.setting),
        **_drafts(BESIDE, beside),
    }


def setting_of(session: NeedleSession, keys: Sequence[Key]) -> Setting:
    """The setting that four controls hold; numbers of a pattern that is not chosen stay as they are at first."""
    backend, pattern, window, sinks = (session.draft(key) for key in keys)
    first = Setting()
    return Setting(
        backend=backend or first.backend,
        pattern=pattern or "",
        window=int(window) if pattern else first.window,
        sinks=int(sinks) if pattern == "sinks_window" else first.sinks,
    )


def _drafts(keys: Sequence[Key], setting: Setting) -> dict[Key, Any]:
    values = (setting.backend, setting.pattern, setting.window, setting.sinks)
    return dict(zip(keys, values, strict=True))


def _setting(
    session: NeedleSession, keys: Sequence[Key], backends: Sequence[str], *, disabled: bool = False
) -> None:
    backend, pattern, window, sinks = keys
    held = session.draft(backend, Setting().backend)
    st.selectbox("Backend", list(dict.fromkeys([*backends, held])), key=backend, disabled=disabled)
    st.selectbox(
        "Every head sees",
        list(PATTERNS),
        key=pattern,
        format_func=lambda key: PATTERNS[key],
        disabled=disabled,
        help="A needle that leaves the window can be found no more, but by what layers hand on: over L layers a window "
        "of w tokens reaches L · (w - 1) tokens back.",
    )
    chosen = "" if disabled else session.draft(pattern)
    left, right = st.columns(2)
    left.number_input("Window, tokens", 1, LONGEST, key=window, disabled=not chosen)
    right.number_input(
        "Sinks, first tokens", 0, MOST_SINKS, key=sinks, disabled=chosen != "sinks_window"
    )


def _haystack(session: NeedleSession) -> None:
    st.text_area(
        "Your own prose",
        key=Key.NEEDLE_TEXT,
        height=180,
        placeholder="Empty: stories, letters and recipes that ship, without end, a different one for each seed",
    )
    st.file_uploader(
        "Or a file of it",
        type=None,
        key=Key.NEEDLE_UPLOAD,
        max_upload_size=_RECEIVED_MIB,
        on_change=control(session, lambda: _read(session)),
    )
    st.caption(
        f"{' '.join(SUFFIXES)}, UTF-8, up to {nbytes(LIMITS.upload_bytes)}; of a file with several texts all are "
        "joined. The needle stands between two of its sentences. Run takes it."
    )


def _read(session: NeedleSession) -> None:
    file = session.draft(Key.NEEDLE_UPLOAD)
    if file is not None:
        session.tell()
        texts = uploaded(file.getvalue(), file.name)
        session.set_draft({Key.NEEDLE_TEXT: "\n\n".join(each.text for each in texts)})
