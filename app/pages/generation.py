"""Generation: what did each new token look at, and what does the cache cost as it grows?"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.asking import captures as inspections
from attnscope.app.components import generation_bar, generation_found
from attnscope.app.components.chart import look
from attnscope.app.components.generation_live import generation_live
from attnscope.app.components.notice import control, guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.components.prompt_box import prompt_box
from attnscope.app.jobs.access import devices, engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.kept.pictures import KeptPictures
from attnscope.app.page_session import Notice
from attnscope.app.prompts.drafts import PromptDrafts
from attnscope.app.settings import Settings
from attnscope.app.state import Key
from attnscope.app.views.generation import (
    GenerationSession,
    GenerationView,
    arguments_of,
    looked,
    model_of,
    view_of,
)
from attnscope.kernels.errors import AttnscopeError, JobMissing, PromptRefused
from attnscope.models.shipped import SHIPPED

Told = Mapping[str, Any]


def page(session: GenerationSession) -> None:
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
    generation_bar.bar(
        session.view,
        offered,
        found,
        models=list(dict.fromkeys([*SHIPPED, session.default.model])),
        devices=devices(),
        on_apply=_act(session, _apply),
    )
    prompt_box(
        _prompt(session),
        limit=offered["max_length"] if offered else None,
        has_template=bool(found and found["facts"]["model"]["has_chat_template"]),
        bytes_per_token=None,
        on_run=_act(session, _run),
        verb="Generate",
        purpose="Continue the prompt, and see what each new token looks at",
    )
    with st.container(key="told", gap="small"):
        for told in (*session.notices, *filter(None, [refused])):
            notice(told)
        if session.job is not None:
            progress(engine().status(session.job))
    if session.view.generation and (session.job is not None or _said(found)):
        st.fragment(guarded(lambda: _live(session)))()
    if session.job is None and found is not None and _said(found):
        generation_found.summary(found, _inspected(session, found))
        generation_found.figures(found, look=look())


def _live(session: GenerationSession) -> None:
    report = generation_live(session.view, over=session.job is None)
    if report is not None:
        session.show(looked(session.view, report))


def _said(found: Told | None) -> bool:
    return found is not None and bool(found["steps"])


def _inspected(session: GenerationSession, found: Told) -> str:
    """The address of Inspect with what was read; the text is there for what is run after."""
    view, facts = session.view, found["facts"]
    capture = (found["ended"] or {}).get("capture")
    if capture is None:
        return ""
    said = "".join(step["text"] for step in found["steps"] if not step["end"])
    texts = tuple(found["asked"]["texts"])
    if facts["source"] is not None or view.chat:
        return view.inspected(capture, {})
    text = texts[0] + said
    return view.inspected(capture, {"example": "", **session.kept.for_link((text,), "")})


def _offered(session: GenerationSession) -> tuple[Told | None, Notice | None]:
    """What can run, before anything is run; or why nobody can say."""
    asked = model_of(session.view)
    known = session.offered
    if known is None or known[0] != asked:
        try:
            known = asked, engine().ask("generation_offered", asked)
        except AttnscopeError as error:
            # A job that runs, or a result, says more than why its choices cannot be listed.
            quiet = session.job is not None or session.found is not None
            return None, None if quiet else Notice.of(error)
        session.offered = known
    return known[1], None


def _arrive(session: GenerationSession) -> None:
    """Find the generation that a link names, its job where it still runs, and fill the controls."""
    view = session.view
    session.job = session.found = None
    if view.generation:
        session.found = _stored(view.generation)
        if session.found is not None:
            shown = view_of(session.found["asked"])
            places = {name: getattr(view, name) for name in ("attention", "layer", "head", "step")}
            session.show(replace(shown, **places))
        with suppress(PromptRefused):
            session.job = engine().under_way("generate", _arguments(session), owner=session.owner)
        if session.found is None and session.job is None:
            session.tell(Notice(message="This generation is not on this server."))
            session.show(view.asked)
    elif view.model == "demo":
        # The demo model is small: a visitor sees a generation before anything is set.
        with suppress(AttnscopeError):
            _start(session)
    _fill_drafts(session)


def _follow(session: GenerationSession) -> None:
    """Take up the job that is over, and read what it left."""
    if session.job is None:
        return
    status = engine().status(session.job)
    if not status.is_over:
        return
    session.job = None
    session.found = _stored(session.view.generation)
    session.tell(*_ending(status, session.found))
    if session.found is None:
        session.show(session.view.asked)


def _ending(status: JobStatus, found: Told | None) -> tuple[Notice, ...]:
    """What is said of a job that did not end well."""
    if status.state == "cancelled":
        kept = "what was said is kept." if _said(found) else "nothing had been said."
        return (Notice(kind="told", message=f"Cancelled; {kept}"),)
    if status.state == "failed":
        kind = "failed" if status.reference else "refused"
        words = {"message": status.reason, "remedy": status.remedy, "reference": status.reference}
        return (Notice(kind=kind, **words),)
    return ()


def _stored(generation: str) -> Told | None:
    with suppress(JobMissing):
        return engine().ask("generation", {"generation": generation})
    return None


def _arguments(session: GenerationSession) -> dict[str, Any]:
    texts = inspections.texts_of(session.view, session.kept)
    return arguments_of(session.view, texts, session.owner)


# What the visitor's controls do; each runs before the page is drawn anew


def _act(
    session: GenerationSession, work: Callable[[GenerationSession], None]
) -> Callable[[], None]:
    return control(session, lambda: work(session))


def _run(session: GenerationSession) -> None:
    """Take the prompt that stands in the box, and continue it."""
    session.tell()
    _prompt(session).run()
    if not session.notices:
        _start(session)


def _start(session: GenerationSession) -> None:
    """Continue the view's prompt, in place of whatever goes on."""
    before = session.view
    if session.job is not None:
        engine().cancel(session.job)
        session.job = None
    session.show(replace(before.asked, generation=secrets.token_hex(16)))
    try:
        session.job = engine().submit("generate", _arguments(session), owner=session.owner)
    except AttnscopeError:
        session.show(before)
        raise
    session.found = None


def _look_at(session: GenerationSession, view: GenerationView) -> None:
    """Take another model or prompt; what was said belongs to the old one."""
    session.tell()
    if view.asked == session.view.asked:
        return
    if session.job is not None:
        engine().cancel(session.job)
        session.job = None
    session.found = None
    session.show(view.asked)


def _apply(session: GenerationSession) -> None:
    decode = session.draft(Key.GENERATION_DECODE)
    model = str(session.draft(Key.SOURCE) or "").strip() or "demo"
    view = session.view
    asked = replace(
        view,
        model=model,
        revision=str(session.draft(Key.REVISION) or "").strip(),
        device=session.draft(Key.DEVICE) or "auto",
        dtype=session.draft(Key.DTYPE) or "auto",
        prefill=session.draft(Key.GENERATION_PREFILL) or view.prefill,
        decode="" if decode in (None, generation_bar.SAME) else decode,
        cache=session.draft(Key.GENERATION_CACHE) or view.cache,
        **{name: session.draft(key, getattr(view, name)) for name, key in _NUMBERS.items()},
    )
    if model != view.model:
        asked = replace(asked, picture="", example="" if view.example else view.example)
    _look_at(session, asked)
    _start(session)
    _prompt(session).fill()


_NUMBERS = {
    "tokens": Key.GENERATION_TOKENS,
    "temperature": Key.GENERATION_TEMPERATURE,
    "top_k": Key.GENERATION_TOP_K,
    "top_p": Key.GENERATION_TOP_P,
    "seed": Key.GENERATION_SEED,
}


def _fill_drafts(session: GenerationSession) -> None:
    view = session.view
    session.set_draft(
        {
            Key.SOURCE: view.model,
            Key.REVISION: view.revision,
            Key.DEVICE: view.device,
            Key.DTYPE: view.dtype,
            Key.CHAT: view.chat,
            Key.GENERATION_PREFILL: view.prefill,
            Key.GENERATION_DECODE: view.decode or generation_bar.SAME,
            Key.GENERATION_CACHE: view.cache,
            **{key: getattr(view, name) for name, key in _NUMBERS.items()},
        }
    )
    _prompt(session).fill()


def _prompt(session: GenerationSession) -> PromptDrafts:
    settings, found = Settings.from_environment(), session.found
    reads_pictures = bool(found and found["facts"]["model"]["reads_pictures"])
    return PromptDrafts(
        session=session,
        kept=session.kept,
        look_at=lambda view: _look_at(session, view),
        pictures=KeptPictures(settings.pictures_folder, days=settings.keep_days)
        if reads_pictures
        else None,
    )
