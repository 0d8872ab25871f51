"""The head of a page that looks at a capture: its model, its prompt, and the job that makes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from attnscope.app import layer_backends
from attnscope.app.asking import captures as inspections
from attnscope.app.asking.captures import Shown, Watched
from attnscope.app.components.model_bar import BackendChoice, backend_choices, model_bar
from attnscope.app.components.notice import control, notice_html
from attnscope.app.components.progress import progress
from attnscope.app.components.prompt_box import prompt_box
from attnscope.app.jobs.access import devices, engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.kept.pictures import KeptPictures
from attnscope.app.page_session import Notice
from attnscope.app.prompts.drafts import PromptDrafts
from attnscope.app.prompts.examples import examples_for
from attnscope.app.settings import Settings
from attnscope.app.state import Key, Session
from attnscope.app.views.inspect import View
from attnscope.kernels.errors import AttnscopeError, CaptureMissing, EngineUnavailable
from attnscope.models.shipped import SHIPPED

_BACKENDS_S = 1.5


def follow(session: Session) -> bool:
    """Take the view of the URL, fill the controls from it, and see to the capture it needs.

    Returns:
        Whether a page's own controls must be filled anew as well; see `PageSession.follow_url`.
    """
    followed = session.follow_url()
    if followed:
        _fill_drafts(session)
    settle(session)
    _request(session)
    return followed


def head(session: Session) -> None:
    """Draw the model and the prompt."""
    shown = session.shown
    model_bar(
        session.view,
        shown,
        backends(session),
        models=_models(session),
        devices=devices(),
        on_apply=act(session, _apply),
    )
    prompt = _prompt(session)
    prompt_box(
        prompt,
        limit=shown.model.get("max_length") if shown else None,
        has_template=bool(shown and shown.model.get("has_chat_template")),
        bytes_per_token=shown.model.get("bytes_per_token") if shown else None,
        on_run=control(session, prompt.run),
    )


def told(session: Session) -> Callable[[JobStatus | None], None]:
    """Draw what the visitor is told.

    One element, so that it takes the place of what was told before at once; the browser keeps what is merely
    left out until the script ends, which may wait for seconds.

    Returns:
        Draws it anew, with what was told since, and how far a job is.
    """
    # Always there, empty or not: what stands below keeps its place, and the viewer what it has drawn.
    place = st.container(key="told", gap="small")
    said = place.html(_said(session))

    def again(under_way: JobStatus | None) -> None:
        said.html(_said(session))
        if under_way is not None:
            with place:
                progress(under_way)

    return again


def _said(session: Session) -> str:
    return "".join(map(notice_html, session.notices)) or "<i hidden></i>"


def absent(session: Session) -> None:
    """Draw what stands where the capture will, or the way to ask for it again."""
    if session.watched is not None:
        st.html('<div class="pg-waiting" aria-hidden="true"><i></i><i></i><i></i></div>')
    elif session.has_given_up:
        st.button("Try again", on_click=session.try_again)


def settle(session: Session) -> None:
    """Take up the capture's job when it is over."""
    watched = session.watched
    if watched is None or not status_of(watched).is_over:
        return
    session.watched = None
    try:
        shown = inspections.finished(engine(), watched)
    except AttnscopeError as error:
        session.give_up(watched.view, ended_badly(status_of(watched), error))
    else:
        session.shown = shown
        asked = session.view
        session.show(inspections.inside(asked, shown))
        if session.view.capture_key != asked.capture_key:
            session.tell(_left_out(shown))


def status_of(watched: Watched) -> JobStatus:
    """Where a job is."""
    return engine().status(watched.job_id)


def started(session: Session, view: View) -> Watched:
    """Ask for the capture of a view.

    Raises:
        AttnscopeError: Its prompt is not kept any more, or the queue does not take it.
    """
    arguments = inspections.arguments_of(view, inspections.texts_of(view, session.kept))
    job_id = inspections.start(engine(), arguments, owner=session.owner)
    return Watched(job_id=job_id, view=view)


def ended_badly(status: JobStatus, error: AttnscopeError) -> Notice:
    """What is said of a job that did not end well."""
    if status.state == "cancelled":
        return Notice(
            kind="told", message="Cancelled; nothing was changed.", reference=status.reference
        )
    return Notice(
        kind="failed" if status.reference else "refused",
        message=status.reason or error.message,
        remedy=status.remedy or error.remedy,
        reference=status.reference,
    )


def act(session: Session, work: Callable[[Session], None]) -> Callable[[], None]:
    """A control's callback, which says what goes wrong."""
    return control(session, lambda: work(session))


def _left_out(shown: Shown) -> Notice:
    model = shown.summary["model"]
    reads = "one text, and neither a target nor a picture"
    if shown.is_pair:
        reads = "a target, but no picture"
    elif shown.reads_pictures:
        reads = "a picture, and no target"
    return Notice(
        kind="told", message=f"The link named what {model} does not read: it takes {reads}."
    )


def _request(session: Session) -> None:
    """Ask for the capture that the view needs, unless it is shown, under way or given up."""
    view, shown, watched = session.view, session.shown, session.watched
    if watched is not None and watched.view.capture_key != view.capture_key:
        engine().cancel(watched.job_id)
        session.watched = watched = None
    wanted = shown is None or shown.view.capture_key != view.capture_key
    if not wanted or watched is not None or session.has_given_up:
        return
    try:
        session.watched = started(session, view)
    except AttnscopeError as error:
        session.give_up(view, Notice.of(error))
    settle(session)


def backends(session: Session) -> tuple[BackendChoice, ...]:
    """Every backend, with why the worker refuses it for the model shown."""
    shown = session.shown
    known: Mapping[str, tuple[BackendChoice, ...]] = session.draft(Key.BACKENDS, {})
    name = shown.capture_id if shown else ""
    if name not in known:
        try:
            answer = engine().ask(
                "backends",
                {"capture": name, "device": shown.summary["device"]} if shown else {},
                timeout_s=_BACKENDS_S,
            )
        except (CaptureMissing, EngineUnavailable):
            # The page hardly waits for a worker that is still starting; the next run of the script asks again.
            chosen = session.view.backend
            return (BackendChoice(name=chosen, title=chosen),)
        known = {name: backend_choices(answer["backends"])}
        session.set_draft({Key.BACKENDS: known})
    return known[name]


def _models(session: Session) -> Sequence[str]:
    return list(dict.fromkeys([*SHIPPED, *(each.view.model for each in session.recent)]))


# What the visitor's controls do; each runs before the page is drawn anew


def _look_at(session: Session, view: View) -> None:
    """Show another prompt or model: same head, but nothing that belongs to the old tokens."""
    session.try_again()
    view = replace(view, made="")
    if view.capture_key != session.view.capture_key:
        view = replace(view, region=None, pinned=None, sequence=0, compare="")
    session.show(view)


def _apply(session: Session) -> None:
    source = str(session.draft(Key.SOURCE) or "").strip()
    layers = layer_backends.read(str(session.draft(Key.LAYER_BACKENDS) or ""))
    asked = {
        "layer_backends": layers,
        "model": source or "demo",
        "revision": str(session.draft(Key.REVISION) or "").strip(),
        "device": session.draft(Key.DEVICE) or "auto",
        "dtype": session.draft(Key.DTYPE) or "auto",
        "backend": session.draft(Key.BACKEND) or session.view.backend,
    }
    refused = next(
        (choice for choice in backends(session) if choice.name == asked["backend"]), None
    )
    same_model = all(
        asked[name] == getattr(session.view, name) for name in ("model", "revision", "device")
    )
    if refused is not None and refused.refusal and same_model:
        session.tell(Notice(message=f"{refused.title} cannot run here: {refused.refusal}"))
        return
    if asked["model"] != session.view.model:
        asked |= {"target": "", "picture": "", "attention": ""}
        titles = {entry.title for entry in examples_for(asked["model"])}
        asked["example"] = session.view.example if session.view.example in titles else ""
    _look_at(session, replace(session.view, **asked))


def _fill_drafts(session: Session) -> None:
    view = session.view
    session.set_draft(
        {
            Key.SOURCE: view.model,
            Key.REVISION: view.revision,
            Key.DEVICE: view.device,
            Key.DTYPE: view.dtype,
            Key.BACKEND: view.backend,
            Key.LAYER_BACKENDS: layer_backends.written(view.layer_backends),
            Key.CHAT: view.chat,
        }
    )
    _prompt(session).fill()


def _prompt(session: Session) -> PromptDrafts:
    shown, settings = session.shown, Settings.from_environment()
    return PromptDrafts(
        session=session,
        kept=session.kept,
        look_at=partial(_look_at, session),
        with_target=bool(session.view.target) or (shown is not None and shown.is_pair),
        pictures=KeptPictures(settings.pictures_folder, days=settings.keep_days)
        if shown is not None and shown.reads_pictures
        else None,
    )
