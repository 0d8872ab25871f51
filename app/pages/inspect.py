"""Inspect: what do the heads attend to? A prompt, every head, one head large, its tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import streamlit as st

from attnscope.app import inspections, layer_backends
from attnscope.app.components.inspector import inspector
from attnscope.app.components.model_bar import BackendChoice, backend_choices, model_bar
from attnscope.app.components.notice import guarded, notice
from attnscope.app.components.progress import progress
from attnscope.app.components.prompt_box import prompt_box
from attnscope.app.inspections import Shown, Watched
from attnscope.app.jobs.access import engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.page_session import Notice
from attnscope.app.prompt_drafts import PromptDrafts
from attnscope.app.prompts import shortened
from attnscope.app.state import Key, Session
from attnscope.app.view import View, changed, for_inspector
from attnscope.kernels.errors import AttnscopeError, CaptureMissing, EngineUnavailable

_BACKENDS_S = 1.5


def page(session: Session) -> None:
    """Draw the page for one run of the script.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if session.follow_url():
        _fill_drafts(session)
    _settle(session)
    _request(session)
    shown = session.shown
    model_bar(
        session.view,
        shown,
        _backends(session),
        models=_models(session),
        devices=_devices(),
        on_apply=_act(session, _apply),
    )
    prompt = _prompt(session)
    prompt_box(
        prompt,
        limit=shown.model.get("max_length") if shown else None,
        has_template=bool(shown and shown.model.get("has_chat_template")),
        bytes_per_token=shown.model.get("bytes_per_token") if shown else None,
        on_run=guarded(prompt.run, tell=session.tell),
    )
    under_way = session.watched or session.comparing
    # Always there, empty or not: what stands below keeps its place, and the viewer what it has drawn.
    with st.container(key="told", gap="small"):
        for told in session.notices:
            notice(told)
        if under_way is not None:
            progress(_status(under_way))
    if shown is not None:
        _inspect(session, shown)
    elif under_way is not None:
        st.html('<div class="pg-waiting" aria-hidden="true"><i></i><i></i><i></i></div>')
    elif session.has_given_up:
        st.button("Try again", on_click=session.try_again)


def _settle(session: Session) -> None:
    """Take up the jobs that are over."""
    watched = session.watched
    if watched is not None and _status(watched).is_over:
        session.watched = None
        try:
            shown = inspections.finished(engine(), watched)
        except AttnscopeError as error:
            session.give_up(watched.view, _ended_badly(watched, error))
        else:
            session.shown = shown
            session.show(inspections.inside(session.view, shown))
    compared = session.comparing
    if compared is not None and _status(compared).is_over:
        session.comparing = None
        try:
            session.remember(inspections.finished(engine(), compared))
        except AttnscopeError as error:
            session.tell(_ended_badly(compared, error))
            session.show(replace(session.view, compare=""))


def _status(watched: Watched) -> JobStatus:
    return engine().status(watched.job_id)


def _ended_badly(watched: Watched, error: AttnscopeError) -> Notice:
    status = _status(watched)
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


def _request(session: Session) -> None:
    """Ask for the capture that the view needs, unless it is shown, under way or given up."""
    view, shown, watched = session.view, session.shown, session.watched
    if watched is not None and watched.view.capture_key != view.capture_key:
        engine().cancel(watched.job_id)
        session.watched = watched = None
    wanted = shown is None or shown.view.capture_key != view.capture_key
    if wanted and watched is None and not session.has_given_up:
        session.watched = _started(session, view)
        if session.watched is not None and _status(session.watched).is_over:
            _settle(session)
    _request_comparison(session)


def _request_comparison(session: Session) -> None:
    shown, view = session.shown, session.view
    kind, _, named = view.compare.partition(":")
    if kind == "capture" and named not in {each.capture_id for each in session.recent}:
        session.tell(
            Notice(
                message="The capture to compare with is not held in this session.",
                remedy="Run its prompt again, then choose it under compare.",
            )
        )
        session.show(replace(view, compare=""))
    if kind != "backend" or shown is None or shown.view.capture_key != view.capture_key:
        return
    beside = replace(view, backend=named, layer_backends=(), compare="")
    have = any(each.view.capture_key == beside.capture_key for each in session.recent)
    if not have and session.comparing is None:
        session.comparing = _started(session, beside, for_comparison=True)
        if session.comparing is not None and _status(session.comparing).is_over:
            _settle(session)


def _started(session: Session, view: View, *, for_comparison: bool = False) -> Watched | None:
    try:
        texts = inspections.texts_of(view, session.kept)
        arguments = inspections.arguments_of(view, texts)
        job_id = inspections.start(engine(), arguments, owner=session.owner)
    except AttnscopeError as error:
        if for_comparison:
            session.tell(Notice.of(error))
            session.show(replace(session.view, compare=""))
        else:
            session.give_up(view, Notice.of(error))
        return None
    return Watched(job_id=job_id, view=view)


def _inspect(session: Session, shown: Shown) -> None:
    """Mount the viewer; what the visitor does there becomes the view and the URL."""

    def viewer() -> None:
        view = session.view
        beside = {
            each.capture_id: each.view.backend
            for each in session.recent
            if each.capture_id != shown.capture_id and _same_but_backend(each, shown)
        }
        named = view.compare.removeprefix("backend:")
        compare_capture = next((c for c, backend in beside.items() if backend == named), "")
        report = inspector(
            shown.capture_id,
            shown.summary,
            for_inspector(view, compare_capture=compare_capture),
            key=Key.INSPECTOR,
            captures=_others(session, shown),
            on_run_again=lambda: session.forget(shown.capture_id),
        )
        if session.shown is None:
            st.rerun()
        if report is not None:
            _take(session, shown, report, beside)

    st.fragment(guarded(viewer))()


def _take(
    session: Session, shown: Shown, report: Mapping[str, object], beside: Mapping[str, str]
) -> None:
    """Make what the visitor did in the viewer the view; under a run for another capture, all but positions."""
    view = session.view
    if view.capture_key == shown.view.capture_key:
        session.show(changed(view, report, beside))
        return
    session.look(changed(shown.view, report, beside))
    places = {name: getattr(view, name) for name in ("region", "pinned", "sequence", "compare")}
    session.show(replace(changed(view, report, beside), **places))


def _same_but_backend(one: Shown, other: Shown) -> bool:
    """Whether two captures differ in their backend alone, and a link can name the first by it."""
    plain = (replace(each.view, backend="", layer_backends=()).capture_key for each in (one, other))
    return len(set(plain)) == 1 and not one.view.layer_backends


def _others(session: Session, shown: Shown) -> list[dict[str, str]]:
    """The captures that can stand beside: those of the same number of tokens."""
    return [
        {"id": each.capture_id, "title": _title(each)}
        for each in session.recent
        if each.capture_id != shown.capture_id
    ]


def _title(shown: Shown) -> str:
    text = shortened(shown.summary["sequences"][0].get("text") or "", 28)
    return f"{shown.summary['backend']} · {shown.summary['model']} · {text}"


def _backends(session: Session) -> tuple[BackendChoice, ...]:
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
    return list(dict.fromkeys(["demo", *(each.view.model for each in session.recent)]))


def _devices() -> Sequence[str]:
    workers = (str(worker["name"]) for worker in engine().health().get("workers", ()))
    devices = (name.removeprefix("worker ") for name in workers if name.startswith("worker "))
    return ["cpu", *(device for device in devices if device != "auto")]


# What the visitor's controls do; each runs before the page is drawn anew


def _act(session: Session, work: Callable[[Session], None]) -> Callable[[], None]:
    return guarded(lambda: work(session), tell=session.tell)


def _look_at(session: Session, view: View) -> None:
    """Show another prompt or model: same head, but nothing that belongs to the old tokens."""
    session.try_again()
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
        (choice for choice in _backends(session) if choice.name == asked["backend"]), None
    )
    same_model = all(
        asked[name] == getattr(session.view, name) for name in ("model", "revision", "device")
    )
    if refused is not None and refused.refusal and same_model:
        session.tell(Notice(message=f"{refused.title} cannot run here: {refused.refusal}"))
        return
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
    return PromptDrafts(session=session, kept=session.kept, look_at=partial(_look_at, session))
