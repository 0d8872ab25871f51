"""The Calculator's controls: each shows the view, and what is done to it becomes the view."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.notice import control
from attnscope.app.state import CalculatorSession
from attnscope.app.views.calculator import (
    DTYPES,
    LARGEST_PAGE,
    OPTIMIZERS,
    OWN_DEVICE,
    PHASES,
    checked_configuration,
)
from attnscope.profiling.units import nbytes

_PHASE_WORDS = {"prefill": "Prompt", "decode": "Next token", "training": "Training step"}
_LOGITS = {False: "of the last position", True: "of every position"}


def controls(
    session: CalculatorSession,
    *,
    models: Sequence[str],
    devices: Mapping[str, Mapping[str, Any]],
    backends: Mapping[str, str],
) -> None:
    """Draw them; a change is in the view before the page is drawn anew.

    Args:
        session: The visitor's.
        models: Sources to choose from; others can be typed.
        devices: The table of devices by name.
        backends: Titles by name.
    """
    put = _Putter(session)
    view = session.view
    model, device, phase, dtype, backend, more = st.columns(
        [5, 5, 4, 3, 5, 3], vertical_alignment="bottom"
    )
    with model:
        st.selectbox(
            "Model",
            list(dict.fromkeys([*models, view.model])),
            accept_new_options=True,
            format_func=lambda name: view.title if name == view.model else name,
            help="The demo, a well-known architecture, a Hugging Face hub id, or a folder on the "
            "server. Only its configuration is read, no weights.",
            **put.widget("model", also={"pasted": "", "revision": ""}),
        )
    with device:
        st.selectbox(
            "Device",
            [*devices, OWN_DEVICE],
            format_func=lambda name: _device_words(name, devices),
            **put.widget("device"),
        )
    with phase:
        st.selectbox("Phase", PHASES, format_func=_PHASE_WORDS.__getitem__, **put.widget("phase"))
    with dtype:
        st.selectbox("dtype", DTYPES, **put.widget("dtype"))
    with backend:
        st.selectbox(
            "Attention backend",
            list(dict.fromkeys([*backends, view.backend])),
            format_func=lambda name: backends.get(name, name),
            **put.widget("backend"),
        )
    with more, st.popover("More", width="stretch"):
        _more(session, put)


def _more(session: CalculatorSession, put: "_Putter") -> None:
    view = session.view
    if view.device == OWN_DEVICE:
        left, middle, right = st.columns(3)
        left.number_input("Memory, GiB", 0.001, 1e6, **put.widget("memory_gib"))
        middle.number_input("Bandwidth, GB/s", 0.001, 1e6, **put.widget("bandwidth_gb_s"))
        right.number_input("Peak, TFLOP/s", 0.001, 1e7, **put.widget("tflops"))
    left, right = st.columns(2)
    left.number_input(
        "Reserve, GiB",
        0.0,
        1e6,
        help="Kept for the driver's context and the allocator's gaps.",
        **put.widget("reserve_gib"),
    )
    right.number_input(
        "Price an hour",
        0.0,
        1e6,
        help="Of the device, in any currency; 0 leaves the cost out.",
        **put.widget("price"),
    )
    if view.phase == "training":
        left.selectbox("Optimizer", OPTIMIZERS, **put.widget("optimizer"))
        right.checkbox("Recompute each layer", **put.widget("checkpointing"))
    if view.phase == "prefill":
        left.selectbox(
            "Logits", [False, True], format_func=_LOGITS.__getitem__, **put.widget("all_logits")
        )
    if view.phase != "training":
        right.number_input(
            "Page of the cache, tokens",
            0,
            LARGEST_PAGE,
            help="0 for a cache that grows to fit.",
            **put.widget("page"),
        )
    if not view.pasted:
        st.text_input("Revision", placeholder="default", max_chars=128, **put.widget("revision"))
    st.text_area(
        "Configuration",
        placeholder='Paste a config.json: {"model_type": "llama", …}',
        height=110,
        help="In place of the model above.",
        **put.widget("pasted", read=lambda text: checked_configuration(text) if text else ""),
    )


class _Putter:
    """Ties widgets to fields of the view."""

    def __init__(self, session: CalculatorSession) -> None:
        self._session = session

    def widget(
        self,
        field: str,
        *,
        read: Callable[[Any], Any] = lambda value: value,
        also: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The key and the callback of a widget, which shows the view's value.

        Args:
            field: Of the view.
            read: Makes the value of what the widget holds, or refuses it.
            also: Other fields that change with it.
        """
        session, name = self._session, f"calculator_{field}"
        session.set_draft({name: getattr(session.view, field)})

        def take() -> None:
            session.tell()
            taken = {**(also or {}), field: read(session.draft(name))}
            if taken[field] is not None:
                session.show(session.view.changed(**taken))

        return {"key": name, "on_change": control(session, take)}


def _device_words(name: str, devices: Mapping[str, Mapping[str, Any]]) -> str:
    if name not in devices:
        return f"{name}: figures under More"
    return f"{name}, {nbytes(devices[name]['memory_bytes'])}"
