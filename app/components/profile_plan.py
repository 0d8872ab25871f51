"""The plan of a profile: what is measured, what each cell is predicted to take, and which cannot run."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from attnscope.app.components.model_bar import BackendChoice, facts_line, share
from attnscope.app.figures.theme import backend_colour
from attnscope.app.state import Key
from attnscope.app.views.profile import DTYPES, MOST_BUDGET_S, PHASES, ProfileView
from attnscope.profiling.units import count, flop, latency, nbytes

Told = Mapping[str, Any]


def bar(
    view: ProfileView,
    planned: Told | None,
    *,
    models: Sequence[str],
    devices: Sequence[str],
    on_apply: Callable[[], None],
) -> None:
    """Draw the line at the top: which model, on which device, with how much room.

    Args:
        view: The plan.
        planned: The answer to `profile_plan`; None before there is one.
        models: Sources to choose from; others can be typed.
        devices: Devices that have a worker.
        on_apply: Called before the rerun when the form is sent.
    """
    with st.container(key="model_bar", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(facts_line(_facts(view, planned)))
        with (
            st.popover("Model", key="profile_model_popover"),
            st.form("profile_model", border=False),
        ):
            st.selectbox(
                "Model",
                list(dict.fromkeys([*models, view.model])),
                key=Key.PROFILE_SOURCE,
                accept_new_options=True,
                help="The demo, a Hugging Face hub id, or a folder on the server. "
                "Only safetensors are loaded; code that comes with a model is never run.",
            )
            left, right = st.columns(2)
            left.text_input(
                "Revision", key=Key.PROFILE_REVISION, placeholder="default", max_chars=128
            )
            right.selectbox(
                "Device",
                list(dict.fromkeys(["auto", *devices, view.device])),
                key=Key.PROFILE_DEVICE,
            )
            st.form_submit_button("Apply", type="primary", on_click=on_apply, width="stretch")
        share()


def form(
    backends: Sequence[BackendChoice], *, on_change: Callable[[], None], disabled: bool
) -> None:
    """Draw the plan's controls; each change is taken at once.

    Args:
        backends: All of them, with why some cannot run here.
        on_change: Called before the rerun.
        disabled: Whether a profile is being measured.
    """
    refusals = {choice.name: choice.refusal for choice in backends}
    refused = [f"**{name}**: {refusal}" for name, refusal in refusals.items() if refusal]
    shared: dict[str, Any] = {"on_change": on_change, "disabled": disabled}
    with st.container(key="profile_plan"):
        columns = st.columns([2.9, 1.7, 0.9, 1.5, 1.5, 1.0], gap="small")
        columns[0].multiselect(
            "Backends",
            list(refusals),
            key=Key.PROFILE_BACKENDS,
            format_func=lambda name: f"{name} (not here)" if refusals.get(name) else name,
            help="Not here, for an ordinary call:\n\n" + "\n\n".join(refused) if refused else None,
            **shared,
        )
        columns[1].text_input("Lengths, tokens", key=Key.PROFILE_LENGTHS, **shared)
        columns[2].text_input("Batches", key=Key.PROFILE_BATCHES, **shared)
        columns[3].multiselect(
            "Phases",
            PHASES,
            key=Key.PROFILE_PHASES,
            help="prefill reads a prompt; decode computes one token against a cache of that length.",
            **shared,
        )
        columns[4].multiselect("Dtypes", DTYPES, key=Key.PROFILE_DTYPES, **shared)
        columns[5].text_input(
            "Budget, s a cell",
            key=Key.PROFILE_BUDGET,
            help=f"Seconds to time one cell, at most {MOST_BUDGET_S:g}. The rule is 20 runs and 2 s; a budget that "
            "ends a cell before is said beside its number.",
            **shared,
        )


def matrix(planned: Told) -> None:
    """Draw the cells: a row a backend, a column a length, in each what is predicted, or why it is not run."""
    st.html(matrix_html(planned["cells"], planned["room_bytes"]))


def ceilings_words(roofs: Told, device: str) -> str:
    """What the least times rest on, or why there are none.

    Args:
        roofs: Of the answer to `profile_plan`.
        device: Whose.
    """
    if not roofs:
        return (
            f"No time is predicted: what {device} can do at most was not measured yet. "
            "The first profile here does that."
        )
    rates = ", ".join(
        f"{flop(roof['flops_per_second'])}/s in {dtype}" for dtype, roof in roofs.items()
    )
    first = next(iter(roofs.values()))
    return (
        f"≥ is the least time, by roofline: {rates} and {first['bytes_per_second'] / 1e9:.3g} GB/s, "
        f"{first['told']}. A small run is far slower."
    )


def matrix_html(cells: Sequence[Told], room_bytes: int) -> str:
    """The table of a plan, with the sentences that its marks stand for."""
    lengths = sorted({cell["length"] for cell in cells})
    differ = [name for name in _ROW if len({cell[name] for cell in cells}) > 1]
    rows: dict[tuple[Any, ...], dict[int, Told]] = {}
    for cell in cells:
        name = (cell["backend"], *(cell[each] for each in differ))
        rows.setdefault(name, {})[cell["length"]] = cell
    head = "".join(f'<th scope="col">{count(length)}</th>' for length in lengths)
    body = "".join(
        _row(name, mine, lengths, room_bytes) for name, mine in sorted(rows.items(), key=_order)
    )
    reasons = dict.fromkeys(
        f"{cell['backend']}: {cell['refusal']}" if cell["refusal"] else _skipped(cell)
        for cell in cells
        if cell["refusal"] or cell["skip"]
    )
    notes = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    return (
        '<table class="pg-table pg-matrix"><caption>Predicted peak memory, weights included'
        f"{', and least time' * any(cell['predicted_s'] for cell in cells)}</caption>"
        f'<thead><tr><th scope="col">tokens</th>{head}</tr></thead><tbody>{body}</tbody></table>'
        + (f'<ul class="pg-reasons">{notes}</ul>' if notes else "")
    )


def swatch(backend: str) -> str:
    """A backend's colour, beside its name."""
    return f'<i class="pg-swatch" style="background:{backend_colour(backend)}"></i>'


_ROW = ("phase", "batch", "dtype")


def _row(
    name: tuple[Any, ...], cells: Mapping[int, Told], lengths: Sequence[int], room_bytes: int
) -> str:
    backend, *others = name
    words = " ".join(f"batch {each}" if isinstance(each, int) else each for each in others)
    head = f'<th scope="row">{swatch(backend)}{html.escape(backend)} <span>{words}</span></th>'
    return f"<tr>{head}{''.join(_cell(cells[length], room_bytes) for length in lengths)}</tr>"


def _cell(cell: Told, room_bytes: int) -> str:
    predicted = cell["predicted_bytes"]
    text = "not known" if predicted is None else nbytes(predicted)
    if cell["refusal"]:
        return f'<td class="pg-not" title="{html.escape(cell["refusal"])}">cannot run</td>'
    if cell["skip"]:
        return f'<td class="pg-not" title="{html.escape(cell["skip"])}">{text}, skipped</td>'
    part = 0.0 if predicted is None else min(predicted / room_bytes, 1.0)
    least = cell["predicted_s"]
    time = "" if least is None else f"<span>≥ {latency(least)}</span>"
    return f'<td style="--share:{part:.4f}">{text}{time}</td>'


def _order(row: tuple[tuple[Any, ...], object]) -> tuple[Any, ...]:
    """By backend, prefill before decode."""
    backend, *others = row[0]
    return backend, "decode" in others, *others


def _skipped(cell: Told) -> str:
    return f"{cell['backend']} at {count(cell['length'])} tokens is skipped: {cell['skip']}."


def _facts(view: ProfileView, planned: Told | None) -> list[tuple[str, str, str]]:
    if planned is None:
        return [("model", view.model, view.model), ("device", view.device, view.device)]
    shape = f"{planned['layers']} layers, {count(planned['parameters'])} parameters"
    limit = planned["max_length"]
    found = [
        ("model", f"{view.model} · {shape}", planned["architecture"]),
        ("revision", view.revision, view.revision),
        ("device", str(planned["device"]), "where it is measured"),
        ("room", nbytes(planned["room_bytes"]), "memory of the device that the run may take"),
        ("reads at most", f"{count(limit)} tokens" if limit else "", "as its configuration says"),
    ]
    return [fact for fact in found if fact[1]]
