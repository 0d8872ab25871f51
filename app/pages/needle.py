"""Needle: up to which length, and at which depths, does a model find what it was told, and which heads look there?"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from attnscope.app.asking import needle as asking
from attnscope.app.components import needle_controls, needle_found
from attnscope.app.components.chart import look
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.figures.needle import NeedleGrid, scale_of
from attnscope.app.jobs.access import engine
from attnscope.app.needles_offered import Setting, read_depths, read_lengths
from attnscope.app.page_session import Notice
from attnscope.app.prompts.links import checked as checked_texts
from attnscope.app.state import Key
from attnscope.app.views.needle import (
    PARTS,
    QUERIES,
    SCORES,
    SIDES,
    NeedleSession,
    NeedleView,
    checked,
)
from attnscope.app.words import needle as words
from attnscope.kernels.errors import PromptRefused
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
    asking.follow(session)
    offered, refused = asking.offered(session)
    needle_controls.bar(
        session.view,
        offered,
        models=list(dict.fromkeys(["demo", session.default.model])),
        devices=asking.devices(),
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
        st.fragment(guarded(lambda: _coming(session)), run_every=_LOOK_EVERY_S)()
    else:
        _found(session)


def _coming(session: NeedleSession) -> None:
    """The grids while trials come."""
    found = asking.found(session)
    if any(each is not None and each["cells"] for each in found):
        _leads(session, found)
        _grids(session, found, st.columns(2, gap="medium"))


def _found(session: NeedleSession) -> None:
    """The grids, one cell looked at, and where its attention went."""
    view, found = session.view, asking.found(session)
    looked_at = found[view.looked_at]
    if looked_at is None or not looked_at["cells"]:
        _promise(view)
        return
    _leads(session, found)
    chosen = _cell(view, looked_at["cells"])
    grids, of_cell, of_attention, of_heads = _places(len(view.settings))
    _grids(session, found, grids, chosen)
    cell = asking.cell(looked_at["asked"]["run"], *chosen)
    title = f"{count(chosen[0])} tokens, needle at {chosen[1]:g} %"
    model = looked_at["facts"]["model"]["title"]
    with of_cell:
        _choose(session, found, chosen)
        needle_found.prompt(cell, title=title, of=model)
    with of_attention:
        if cell["attention"] is None:
            st.html(f'<p class="pg-note">{html.escape(words.ranked_note(looked_at))}</p>')
        else:
            _parts(session)
            needle_found.attention(
                cell, view.part, view.queries, title=title, of=model, width=_HEADS, look=look()
            )
    if looked_at["heads"]:
        with of_heads:
            needle_found.top_heads(looked_at, *_addresses(session, looked_at, cell["trials"][0]))
    origin = " · ".join(words.provenance(each) for each in found if each is not None)
    st.html(
        f'<p class="pg-note">{html.escape(words.meaning(looked_at))}</p>'
        f'<p class="pg-note pg-origin">{html.escape(origin)}</p>'
    )


def _promise(view: NeedleView) -> None:
    """What will be run, before anything is."""
    promise = words.plan(view.trials, view.tokens, len(view.settings))
    st.html(
        f'<p class="pg-note">{html.escape(words.TASKS[view.task])}</p>'
        f'<p class="pg-note">Run hides it at every depth of every length: {html.escape(promise)} '
        "What that takes is predicted once the first trials have run.</p>"
    )


def _places(
    settings: int,
) -> tuple[Sequence[DeltaGenerator], DeltaGenerator, DeltaGenerator, DeltaGenerator]:
    """Where the grids stand, and the cell, its attention and the heads: a cell stands beside a grid that is alone."""
    if settings == 1:
        grid, cell = st.columns([40, 62], gap="medium")
        attention, heads = st.columns([40, 62], gap="medium")
        return [grid], cell, attention, heads
    grids = st.columns(2, gap="medium")
    cell, attention, heads = st.columns([46, 40, 36], gap="medium")
    return grids, cell, attention, heads


def _leads(session: NeedleSession, found: Sequence[Told | None]) -> None:
    """What was found, in words, and the score that is shown."""
    settings = session.view.settings
    for setting, each in zip(settings, found, strict=True):
        if each is not None and each["cells"]:
            needle_found.lead(each, setting.title if len(settings) > 1 else "")
    session.set_draft({Key.NEEDLE_SCORE: session.view.score})
    st.segmented_control(
        "Score",
        SCORES,
        key=Key.NEEDLE_SCORE,
        format_func=words.SCORES.__getitem__,
        label_visibility="collapsed",
        on_change=_act(session, partial(_look, key=Key.NEEDLE_SCORE, name="score")),
    )


def _grids(
    session: NeedleSession,
    found: Sequence[Told | None],
    places: Sequence[DeltaGenerator],
    chosen: tuple[int, float] | None = None,
) -> None:
    """The grid of every setting, on one scale; cells can be chosen where one is."""
    view = session.view
    cells = [cell for each in found if each is not None for cell in each["cells"]]
    scale = scale_of(cells, view.score)
    for at, (place, setting, each) in enumerate(zip(places, view.settings, found, strict=False)):
        with place:
            if each is None:
                st.html(f'<p class="pg-note">{html.escape(setting.title)}: not run yet.</p>')
                continue
            drawn = NeedleGrid(
                cells=each["cells"],
                lengths=view.lengths,
                depths=view.depths,
                score=view.score,
                scale=scale,
                chosen=chosen if at == view.looked_at else None,
            )
            needle_found.grid(
                drawn,
                each,
                title=setting.title,
                key=_GRIDS[at],
                width=_GRID,
                look=look(),
                on_choose=None if chosen is None else _act(session, partial(_click, at=at)),
            )


def _choose(
    session: NeedleSession, found: Sequence[Told | None], chosen: tuple[int, float]
) -> None:
    """The cell looked at, by the keyboard too."""
    settings = session.view.settings
    places = [
        (at, *place)
        for at, each in enumerate(found)
        if each is not None
        for place in sorted((cell["length"], float(cell["depth"])) for cell in each["cells"])
    ]

    def written(place: tuple[int, int, float]) -> str:
        at, length, depth = place
        of = f"{settings[at].title}: " if len(settings) > 1 else ""
        return f"{of}{count(length)} tokens, {depth:g} %"

    session.set_draft({Key.NEEDLE_CELL: (session.view.looked_at, *chosen)})
    st.selectbox(
        "Cell looked at; or click one in a grid",
        places,
        key=Key.NEEDLE_CELL,
        format_func=written,
        on_change=_act(session, _look_at_cell),
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
    setting = view.settings[view.looked_at]
    if text is None:
        return {}, "The prompt of this cell is too long to be handed to Inspect."
    prompt = session.kept.for_link((text,), "")
    heads = found["heads"][: needle_found.TOP]
    places = [(each["layer"], each["head"]) for each in heads]
    addresses = {place: view.head_address(prompt, setting, *place) for place in places}
    notes = []
    if setting.pattern:
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


def _arrive(session: NeedleSession) -> None:
    """Find the jobs of the grid that a link names where they still run, and fill the controls."""
    session.jobs = ()
    try:
        asking.join(session)
    except PromptRefused as error:
        session.tell(Notice.of(error))
        session.show(replace(session.view, texts=(), stored=""))
    session.set_draft(needle_controls.drafts_of(session.view, session.haystack))


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
    asking.submit(session)


def _apply(session: NeedleSession) -> None:
    """Take another model."""
    session.tell()
    asking.end(session)
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


def _look_at_cell(session: NeedleSession) -> None:
    place = session.draft(Key.NEEDLE_CELL)
    if place is not None:
        at, length, depth = place
        session.show(replace(session.view, cell=(length, depth), side=SIDES[at]))


def _click(session: NeedleSession, *, at: int) -> None:
    points = session.draft(_GRIDS[at])["selection"]["points"]
    if points:
        length, depth = points[0]["customdata"][:2]
        session.show(replace(session.view, cell=(int(length), float(depth)), side=SIDES[at]))
