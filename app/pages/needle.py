"""Needle: up to which length, and at which depths, does a model find what it was told, and which heads look there?"""

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from attnscope.app.components import needle_controls, needle_found
from attnscope.app.components.chart import look
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.figures.needle import NeedleGrid, scale_of
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.page_session import Notice
from attnscope.app.prompts.links import checked as checked_texts
from attnscope.app.state import Key
from attnscope.app.views.needle import (
    PARTS,
    QUERIES,
    SCORES,
    NeedleSession,
    NeedleView,
    Setting,
    arguments_of,
    checked,
    read_depths,
    read_lengths,
)
from attnscope.app.words import needle as words
from attnscope.kernels.errors import AttnscopeError, JobMissing, PromptRefused
from attnscope.profiling.units import count

_LOOK_EVERY_S = 1.0
_GRID, _HEADS = 420, 400
_GRIDS = (Key.NEEDLE_GRID, Key.NEEDLE_GRID_BESIDE)

Told = Mapping[str, Any]


def page(session: NeedleSession) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if session.follow_url():
        _arrive(session)
    _follow(session)
    offered, refused = _offered(session)
    needle_controls.bar(
        session.view,
        offered,
        models=list(dict.fromkeys(["demo", session.default.model])),
        devices=_devices(),
        on_apply=_act(session, _apply),
    )
    needle_controls.controls(
        session,
        [each["name"] for each in offered["backends"] if not each["reason"]] if offered else [],
        on_run=_act(session, _run),
        disabled=bool(session.jobs),
    )
    with st.container(key="told", gap="small"):
        for told in (*session.notices, *filter(None, [refused])):
            notice(told)
        for job in session.jobs:
            progress(engine().status(job))
    if session.jobs:
        # Only this part is drawn again while trials come; the end of a job runs the whole page.
        st.fragment(guarded(lambda: _grids(session, _all(session))), run_every=_LOOK_EVERY_S)()
    else:
        _found(session)


def _found(session: NeedleSession) -> None:
    view, found = session.view, _all(session)
    first = found[0]
    if first is None or not first["cells"]:
        promise = words.plan(view.trials, view.tokens, len(view.settings))
        st.html(
            f'<p class="pg-note">{html.escape(words.TASKS[view.task])}</p>'
            f'<p class="pg-note">Run hides it at every depth of every length: {html.escape(promise)} '
            "What that takes is predicted once the first trials have run.</p>"
        )
        return
    _grids(session, found)
    chosen = _cell(view, first["cells"])
    st.html(f'<p class="pg-note">{html.escape(words.meaning(first))}</p>')
    _one(session, first, chosen)
    origin = " · ".join(words.provenance(each) for each in found if each is not None)
    st.html(f'<p class="pg-note pg-origin">{html.escape(origin)}</p>')


def _grids(session: NeedleSession, found: Sequence[Told | None]) -> None:
    """The grid of every setting, on one scale."""
    view = session.view
    there = [each for each in found if each is not None and each["cells"]]
    if not there:
        return
    needle_found.lead(there[0])
    _scores(session)
    scale = scale_of([cell for each in there for cell in each["cells"]], view.score)
    chosen = _cell(view, there[0]["cells"])
    columns = st.columns(len(view.settings)) if len(view.settings) > 1 else [st.container()]
    for column, key, setting, each in zip(columns, _GRIDS, view.settings, found, strict=False):
        with column:
            if each is None:
                st.html(f'<p class="pg-note">{html.escape(setting.title)}: not run yet.</p>')
                continue
            drawn = NeedleGrid(
                cells=each["cells"],
                lengths=view.lengths,
                depths=view.depths,
                score=view.score,
                scale=scale,
                chosen=chosen,
            )
            on_choose = None if session.jobs else _act(session, partial(_click, key=key))
            needle_found.grid(
                drawn,
                each,
                title=setting.title,
                key=key,
                width=_GRID,
                look=look(),
                on_choose=on_choose,
            )


def _scores(session: NeedleSession) -> None:
    session.set_draft({Key.NEEDLE_SCORE: session.view.score})
    st.segmented_control(
        "Score",
        SCORES,
        key=Key.NEEDLE_SCORE,
        format_func=words.SCORES.__getitem__,
        label_visibility="collapsed",
        on_change=_act(session, partial(_look, key=Key.NEEDLE_SCORE, name="score")),
    )


def _one(session: NeedleSession, found: Told, chosen: tuple[int, float]) -> None:
    """One cell looked at: its prompt and answers, and where the attention went."""
    view, model = session.view, found["facts"]["model"]["title"]
    length, depth = chosen
    cell = engine().ask(
        "needle_cell", {"run": found["asked"]["run"], "length": length, "depth": depth}
    )
    title = f"{count(length)} tokens, needle at {depth:g} %"
    left, middle, right = st.columns([40, 40, 34], gap="medium")
    with left:
        _choose(session, found, chosen)
        needle_found.prompt(cell, title=title, of=model)
    with middle:
        if cell["attention"] is None:
            st.html(f'<p class="pg-note">{html.escape(words.ranked_note(found))}</p>')
            return
        _parts(session)
        needle_found.attention(
            cell, view.part, view.queries, title=title, of=model, width=_HEADS, look=look()
        )
    with right:
        addresses, why_not = _addresses(session, found, cell["trials"][0])
        needle_found.top_heads(found, addresses, why_not)


def _choose(session: NeedleSession, found: Told, chosen: tuple[int, float]) -> None:
    """The cell looked at, by the keyboard too."""
    places = sorted((each["length"], float(each["depth"])) for each in found["cells"])
    session.set_draft({Key.NEEDLE_CELL: chosen})
    st.selectbox(
        "Cell looked at; or click one in the grid",
        places,
        key=Key.NEEDLE_CELL,
        format_func=lambda place: f"{count(place[0])} tokens, {place[1]:g} %",
        on_change=_act(session, partial(_look, key=Key.NEEDLE_CELL, name="cell")),
    )


def _parts(session: NeedleSession) -> None:
    view = session.view
    session.set_draft({Key.NEEDLE_PART: view.part, Key.NEEDLE_QUERIES: view.queries})
    left, right = st.columns(2)
    left.selectbox(
        "Mass on",
        PARTS,
        key=Key.NEEDLE_PART,
        format_func=words.PARTS.__getitem__,
        on_change=_act(session, partial(_look, key=Key.NEEDLE_PART, name="part")),
    )
    right.selectbox(
        "Of",
        QUERIES,
        key=Key.NEEDLE_QUERIES,
        format_func=words.QUERIES.__getitem__,
        on_change=_act(session, partial(_look, key=Key.NEEDLE_QUERIES, name="queries")),
    )


def _addresses(
    session: NeedleSession, found: Told, trial: Told
) -> tuple[dict[tuple[int, int], str], str]:
    """Inspect with the cell's first prompt at each head of the table, and what the link does not show."""
    text, view = trial["text"], session.view
    if text is None:
        return {}, "The prompt of this cell is too long to be handed to Inspect."
    prompt = session.kept.for_link((text,), "")
    heads = found["heads"][: needle_found.TOP]
    places = [(each["layer"], each["head"]) for each in heads]
    addresses = {place: view.head_address(prompt, *place) for place in places}
    notes = []
    if view.setting.pattern:
        notes.append("Inspect opens the prompt without the pattern.")
    if not trial["same_tokens"]:
        notes.append("Its text gives Inspect slightly other tokens at the seams.")
    return addresses, " ".join(notes)


def _cell(view: NeedleView, cells: Sequence[Told]) -> tuple[int, float]:
    """The cell looked at: as chosen, or the last length at which something is still found."""
    places = [(each["length"], float(each["depth"])) for each in cells]
    if view.cell in places:
        return view.cell
    best = max(cells, key=lambda each: (each["exact"] > 0, each["length"], each["exact"]))
    return best["length"], float(best["depth"])


# What the worker knows, and the jobs under way


def _offered(session: NeedleSession) -> tuple[Told | None, Notice | None]:
    """What can run, before anything is run; or why nobody can say."""
    view = session.view
    asked = {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
    }
    known = session.offered
    if known is None or known[0] != asked:
        try:
            known = asked, engine().ask("check_offered", asked)
        except AttnscopeError as error:
            return None, Notice.of(error)
        session.offered = known
    return known[1], None


def _arrive(session: NeedleSession) -> None:
    """Find the jobs of the grid that a link names where they still run; with nothing set, run the demo's."""
    session.jobs = ()
    view, haystack = session.view, ""
    try:
        haystack = session.haystack
        asked = [arguments_of(view, setting, haystack) for setting in view.settings]
        jobs = (engine().under_way("needle", each, owner=session.owner) for each in asked)
        session.jobs = tuple(job for job in jobs if job is not None)
        if not session.jobs and view.asked == NeedleView() and _stored(asked[0]["run"]) is None:
            _submit(session)
    except PromptRefused as error:
        session.tell(Notice.of(error))
        session.show(replace(view, texts=(), stored=""))
    session.set_draft(needle_controls.drafts_of(session.view, haystack))


def _follow(session: NeedleSession) -> None:
    """Take up the jobs that are over."""
    statuses = [engine().status(job) for job in session.jobs]
    over = [status for status in statuses if status.is_over]
    if over:
        session.jobs = tuple(status.id for status in statuses if not status.is_over)
        session.tell(*(told for status in over for told in _ending(status)))


def _ending(status: JobStatus) -> tuple[Notice, ...]:
    """What is said of a job that did not end well."""
    if status.state == "cancelled":
        return (Notice(kind="told", message="Cancelled; finished trials are kept. Run goes on."),)
    if status.state == "failed":
        kind = "failed" if status.reference else "refused"
        told = {"message": status.reason, "remedy": status.remedy, "reference": status.reference}
        return (Notice(kind=kind, **told),)
    return ()


def _all(session: NeedleSession) -> list[Told | None]:
    """What was found under each setting; None where nothing was begun."""
    haystack = session.haystack
    return [
        _stored(arguments_of(session.view, setting, haystack)["run"])
        for setting in session.view.settings
    ]


def _stored(run: str) -> Told | None:
    with suppress(JobMissing):
        return engine().ask("needle", {"run": run})
    return None


def _devices() -> list[str]:
    workers = (str(worker["name"]) for worker in engine().health().get("workers", ()))
    devices = (name.removeprefix("worker ") for name in workers if name.startswith("worker "))
    return ["cpu", *(device for device in devices if device != "auto")]


# What the visitor's controls do; each runs before the page is drawn anew


def _act(session: NeedleSession, work: Callable[[NeedleSession], None]) -> Callable[[], None]:
    return control(session, lambda: work(session))


def _run(session: NeedleSession) -> None:
    """Take what the controls say, and run what of it is not done yet."""
    session.tell()
    view, text = session.view, str(session.draft(Key.NEEDLE_TEXT) or "").strip()
    beside: Setting | None = None
    if session.draft(Key.NEEDLE_BESIDE):
        beside = needle_controls.setting_of(session, needle_controls.BESIDE)
    asked = replace(
        view,
        task=session.draft(Key.NEEDLE_TASK),
        lengths=read_lengths(str(session.draft(Key.NEEDLE_LENGTHS) or "")),
        depths=read_depths(str(session.draft(Key.NEEDLE_DEPTHS) or "")),
        seeds=int(session.draft(Key.NEEDLE_SEEDS) or 1),
        setting=needle_controls.setting_of(session, needle_controls.FIRST),
        beside=beside,
        texts=checked_texts((text,)) if text else (),
        stored="",
    )
    session.show(checked(asked))
    _submit(session)


def _submit(session: NeedleSession) -> None:
    """Ask for the grid of every setting."""
    haystack = session.haystack
    for setting in session.view.settings:
        arguments = arguments_of(session.view, setting, haystack)
        job = engine().submit("needle", arguments, owner=session.owner)
        session.jobs = (*session.jobs, job)


def _apply(session: NeedleSession) -> None:
    """Take another model."""
    session.tell()
    for job in session.jobs:
        engine().cancel(job)
    session.jobs = ()
    session.show(
        replace(
            session.view,
            model=str(session.draft(Key.SOURCE) or "").strip() or "demo",
            revision=str(session.draft(Key.REVISION) or "").strip(),
            device=session.draft(Key.DEVICE) or "auto",
            dtype=session.draft(Key.DTYPE) or "auto",
            cell=None,
        )
    )


def _look(session: NeedleSession, *, key: Key, name: str) -> None:
    """Take what a control of the result holds into the view; one that is emptied keeps what it had."""
    value = session.draft(key)
    if value is not None:
        session.show(replace(session.view, **{name: value}))


def _click(session: NeedleSession, *, key: Key) -> None:
    points = session.draft(key)["selection"]["points"]
    if points:
        length, depth = points[0]["customdata"][:2]
        session.show(replace(session.view, cell=(int(length), float(depth))))
