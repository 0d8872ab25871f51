"""Backends: which one is right, and is it exact here? One click runs them all on a prompt, against float64."""

import html
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.asking import captures as inspections
from attnscope.app.components import backends_bar, backends_found
from attnscope.app.components.chart import look
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.components.prompt_box import prompt_box
from attnscope.app.jobs.access import devices, engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.kept.pictures import KeptPictures
from attnscope.app.page_session import Notice
from attnscope.app.prompts.drafts import PromptDrafts
from attnscope.app.prompts.examples import examples_for
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from attnscope.app.views.backends import (
    BackendsSession,
    BackendsView,
    arguments_of,
    chosen_layers,
    model_of,
    region_around,
    view_of,
)
from attnscope.app.views.inspect import DEFAULT_BACKEND
from attnscope.app.words.backends import provenance
from attnscope.kernels.errors import AttnscopeError, InvalidCall, JobMissing, PromptRefused

_LOOK_EVERY_S = 1.0

Told = Mapping[str, Any]


def page(session: BackendsSession) -> None:
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
    found = session.found
    backends_bar.bar(
        session.view,
        offered,
        found,
        models=list(dict.fromkeys(["demo", session.default.model])),
        devices=devices(),
        on_apply=_act(session, _apply),
    )
    model = found["facts"]["model"] if found else {}
    prompt_box(
        _prompt(session),
        limit=offered["max_length"] if offered else None,
        has_template=bool(model.get("has_chat_template")),
        bytes_per_token=None,
        on_run=_act(session, _check),
        verb="Check",
        purpose="Run every backend on the prompt, and hold each against float64",
    )
    with st.container(key="told", gap="small"):
        for told in (*session.notices, *filter(None, [refused])):
            notice(told)
        if session.job is not None:
            progress(engine().status(session.job))
    if session.job is not None:
        # Only this part is drawn again while results come; the end of the job runs the whole page.
        st.fragment(guarded(lambda: _coming(session, offered)), run_every=_LOOK_EVERY_S)()
    elif found is not None and found["results"]:
        _found(session, found, offered)
    elif offered is not None:
        st.html(f'<p class="pg-note">{backends_found.PROMISE}</p>')
        st.html(backends_found.table_html(offered["backends"]))


def _offered(session: BackendsSession) -> tuple[Told | None, Notice | None]:
    """What can run, before anything is run; or why nobody can say."""
    asked = model_of(session.view)
    known = session.offered
    if known is None or known[0] != asked:
        try:
            known = asked, engine().ask("check_offered", asked)
        except AttnscopeError as error:
            return None, Notice.of(error)
        session.offered = known
    return known[1], None


def _arrive(session: BackendsSession) -> None:
    """Find the check that a link names, its job where it still runs, and fill the controls."""
    view = session.view
    session.job = session.found = None
    if view.check:
        session.found = _stored(view.check)
        if session.found is not None:
            asked = view_of(session.found["asked"])
            session.show(replace(asked, backend=view.backend, layers=view.layers))
        with suppress(PromptRefused):
            arguments = _arguments(session)
            session.job = engine().under_way("check_backends", arguments, owner=session.owner)
        if session.found is None and session.job is None:
            gone = Notice(message="This check is not on this server.", remedy="Check again.")
            session.tell(gone)
            session.show(view.asked)
    _fill_drafts(session)


def _follow(session: BackendsSession) -> None:
    """Take up the job that is over, and read what it found."""
    if session.job is None:
        return
    status = engine().status(session.job)
    if not status.is_over:
        return
    session.job = None
    session.tell(*_ending(status))
    session.found = _stored(session.view.check)
    if session.found is None:
        session.show(session.view.asked)


def _ending(status: JobStatus) -> tuple[Notice, ...]:
    """What is said of a job that did not end well."""
    if status.state == "cancelled":
        return (Notice(kind="told", message="Cancelled; what was found is kept."),)
    if status.state == "failed":
        kind = "failed" if status.reference else "refused"
        words = {"message": status.reason, "remedy": status.remedy, "reference": status.reference}
        return (Notice(kind=kind, **words),)
    return ()


def _stored(check: str) -> Told | None:
    with suppress(JobMissing):
        return engine().ask("check", {"check": check})
    return None


def _coming(session: BackendsSession, offered: Told | None) -> None:
    """The table while results come."""
    rows = _rows(_stored(session.view.check), offered)
    with st.container(key="backends_coming"):
        st.html(backends_found.table_html(rows, untimed="timed last, in turns"))


def _rows(found: Told | None, offered: Told | None) -> list[Told]:
    """The results there are, and what the other backends are offered as: a check may not have come to its end."""
    results = {} if found is None else {each["name"]: each for each in found["results"]}
    others = {} if offered is None else {each["name"]: each for each in offered["backends"]}
    return list({**others, **results}.values())


def _found(session: BackendsSession, found: Told, offered: Told | None) -> None:
    backends_found.table(found, _rows(found, offered))
    colours = look()
    ran = {each["name"]: each for each in found["results"] if each["heads"]}
    if ran:
        row = ran.get(session.view.backend) or _asking_most(list(ran.values()))
        _one(session, found, row, list(ran))
    backends_found.costs(found, look=colours)
    origin = html.escape(provenance(found["facts"]))
    st.html(f'<p class="pg-note pg-origin">{origin}</p>')


def _one(session: BackendsSession, found: Told, row: Told, names: list[str]) -> None:
    """One backend looked at: its heads, its worst, and the choice of it for Inspect."""
    view, name, layers = session.view, row["name"], _layers(row)
    session.set_draft({Key.CHECK_BACKEND: name})
    if session.draft(Key.CHECK_LAYERS) is None:
        session.set_draft({Key.CHECK_LAYERS: view.layers})
    address, why_not = "", _not_offered(row)
    if not why_not:
        try:
            chosen = chosen_layers(view.layers, name, layers)
            address = view.inspected(layers=chosen) if chosen else view.inspected(backend=name)
        except InvalidCall as error:
            notice(Notice.of(error))
            address = view.inspected(backend=name)
    backends_found.choice(
        name,
        names,
        address,
        why_not,
        layers=layers,
        on_choose=_act(session, _choose),
        on_layers=_act(session, lambda session: _choose_layers(session, layers)),
    )
    backends_found.one(found, row, _head_address(view, found, row["worst"], row), look=look())


def _layers(row: Told) -> int:
    return 1 + max(head["layer"] for head in row["heads"])


def _not_offered(row: Told) -> str:
    """Why Inspect is not opened under a backend."""
    if row["verdict"] == "wrong":
        return "It is wrong on this prompt, so Inspect is not offered with it."
    if not row["exact"]:
        return "It approximates: no map of softmax weights shows what it does."
    return ""


def _head_address(view: BackendsView, found: Told, worst: Told, row: Told) -> str:
    """Inspect at the head to look at first, round its wrong cell; under eager where this backend is not right."""
    cell = worst["cell"]
    sequence = 0 if cell is None else cell["sequence"]
    tokens = len(found["facts"]["tokens"][sequence])
    return view.inspected(
        backend=row["name"] if row["exact"] and cell is None else "eager",
        layer=worst["layer"],
        head=worst["head"],
        sequence=sequence,
        region=None if cell is None else region_around(cell["query"], worst["key"], tokens),
    )


def _asking_most(rows: list[Told]) -> Told:
    """The backend to look at unasked: a wrong one, or the exact one that errs most, or any."""
    exact = [each for each in rows if each["exact"]] or rows
    return next(
        (each for each in exact if each["verdict"] == "wrong"),
        max(exact, key=lambda each: each["worst"]["relative"] or 0.0),
    )


def _arguments(session: BackendsSession) -> dict[str, Any]:
    texts = inspections.texts_of(session.view, session.kept)
    return arguments_of(session.view, texts, session.owner)


# What the visitor's controls do; each runs before the page is drawn anew


def _act(session: BackendsSession, work: Callable[[BackendsSession], None]) -> Callable[[], None]:
    return control(session, lambda: work(session))


def _check(session: BackendsSession) -> None:
    """Take the prompt that stands in the box, and check every backend on it."""
    session.tell()
    _prompt(session).run()
    if session.notices:
        return
    before = session.view
    _let_go(session)
    session.show(replace(before.asked, check=secrets.token_hex(16)))
    try:
        arguments = _arguments(session)
        session.job = engine().submit("check_backends", arguments, owner=session.owner)
    except AttnscopeError:
        session.show(before)
        raise
    session.found = None


def _let_go(session: BackendsSession) -> None:
    """End the job of a check that is no longer wanted."""
    if session.job is not None:
        engine().cancel(session.job)
        session.job = None


def _look_at(session: BackendsSession, view: BackendsView) -> None:
    """Take another model or prompt; what was found belongs to the old one."""
    session.tell()
    if view.asked == session.view.asked:
        return
    _let_go(session)
    session.found = None
    session.show(view.asked)


def _apply(session: BackendsSession) -> None:
    view, model = session.view, str(session.draft(Key.SOURCE) or "").strip() or "demo"
    if model != view.model:
        titles = {entry.title for entry in examples_for(model)}
        view = replace(view, picture="", example=view.example if view.example in titles else "")
    _look_at(
        session,
        replace(
            view,
            model=model,
            revision=str(session.draft(Key.REVISION) or "").strip(),
            device=session.draft(Key.DEVICE) or "auto",
            dtype=session.draft(Key.DTYPE) or "auto",
        ),
    )


def _choose(session: BackendsSession) -> None:
    session.show(replace(session.view, backend=session.draft(Key.CHECK_BACKEND) or ""))


def _choose_layers(session: BackendsSession, layers: int) -> None:
    """Take the layers into the view, or say what is wrong with them and leave it as it was."""
    text = str(session.draft(Key.CHECK_LAYERS) or "").strip()
    chosen_layers(text, DEFAULT_BACKEND, layers)
    session.tell()
    session.show(replace(session.view, layers=text))


def _fill_drafts(session: BackendsSession) -> None:
    view = session.view
    session.set_draft(
        {
            Key.SOURCE: view.model,
            Key.REVISION: view.revision,
            Key.DEVICE: view.device,
            Key.DTYPE: view.dtype,
            Key.CHAT: view.chat,
            Key.CHECK_LAYERS: view.layers,
        }
    )
    _prompt(session).fill()


def _prompt(session: BackendsSession) -> PromptDrafts:
    settings, known = Settings.from_environment(), session.offered
    return PromptDrafts(
        session=session,
        kept=session.kept,
        look_at=lambda view: _look_at(session, view),
        pictures=KeptPictures(settings.pictures_folder, days=settings.keep_days)
        if known is not None and known[1]["reads_pictures"]
        else None,
    )
