"""Profile: what does it cost, live, on this device? A plan, its measurement as it happens, and what was found."""

import html
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from attnscope.app.components import profile_found, profile_plan
from attnscope.app.components.model_bar import BackendChoice, backend_choices
from attnscope.app.components.notice import control, notice
from attnscope.app.components.profile_live import profile_live
from attnscope.app.components.progress import progress
from attnscope.app.figures.theme import theme
from attnscope.app.jobs.access import devices, engine
from attnscope.app.jobs.engine import JobStatus
from attnscope.app.page_session import Notice
from attnscope.app.state import Key
from attnscope.app.views.profile import (
    ProfileSession,
    ProfileView,
    arguments_of,
    batches_of,
    budget_of,
    checked,
    lengths_of,
    view_of,
    written,
)
from attnscope.kernels.errors import AttnscopeError, EngineUnavailable, JobMissing
from attnscope.profiling.units import count, nbytes

_BACKENDS_S = 1.5


def page(session: ProfileSession) -> None:
    """Draw the page for one run of the script.

    Args:
        session: The visitor's.

    Raises:
        EngineUnavailable: The page runs without the server that belongs to it.
    """
    engine()
    if session.follow_url():
        _arrive(session)
    # Streamlit forgets the controls that a run of the script does not draw.
    drafts = _drafts(session.view).items()
    session.set_draft({key: value for key, value in drafts if session.draft(key) is None})
    _follow_ceilings(session)
    _follow(session)
    planned, refused = (None, None) if session.job else _planned(session)
    profile_plan.bar(
        session.view,
        planned,
        models=list(dict.fromkeys(["demo", session.default.model])),
        devices=devices(),
        on_apply=_act(session, _apply),
    )
    profile_plan.form(
        _backends(session), on_change=_act(session, _apply), disabled=session.job is not None
    )
    with st.container(key="told", gap="small"):
        for told in (*session.notices, *filter(None, [refused])):
            notice(told)
        for job in filter(None, (session.job, session.ceilings)):
            progress(engine().status(job))
    if session.job is not None:
        profile_live(session.view.profile)
    else:
        if planned is not None:
            _before(session, planned)
        _after(session)


def _arrive(session: ProfileSession) -> None:
    """Fill the controls: of a link that names a profile alone, with its plan; at first, with the visitor's last.

    Who has none yet sees the profile that ships, under a plan that is quick to measure here.
    """
    view, default = session.view, session.default
    if view.plan == default:
        last = {} if view.profile else engine().ask("profile_last", {"owner": session.owner})
        known = view.profile or last["profile"] or last["ships"]
        found = _stored(known) if known else None
        if found is not None and (view.profile or found["plan"]["source"] == default.model):
            shown = replace(view, profile=known) if found["ships"] else view_of(found["plan"])
            session.show(replace(shown, record=view.record))
    session.set_draft(_drafts(session.view))


def _stored(profile: str) -> Mapping[str, Any] | None:
    with suppress(JobMissing):
        return engine().ask("profile", {"profile": profile})
    return None


def _follow(session: ProfileSession) -> None:
    """Find the job of the profile shown, take it up when it is over, and read what it found."""
    view, ended = session.view, None
    if session.job is not None:
        ended = engine().status(session.job)
        if not ended.is_over:
            return
        session.job = session.found = None
        # The first profile of a device measures its ceilings, on which the plan's times rest.
        session.remember(Key.PROFILE_PLANNED, None, None)
        session.tell(*_ending(ended))
    known = session.found
    if not view.profile or (known is not None and known["plan"]["profile"] == view.profile):
        return
    found = _stored(view.profile)
    # A job that waits has written nothing yet.
    plan = arguments_of(view, session.owner) if found is None else found["plan"]
    session.job = engine().under_way("profile", dict(plan), owner=session.owner)
    session.found = found
    if found is None and session.job is None:
        if ended is None:
            gone = Notice(message="This profile is not on this server.", remedy="Measure again.")
            session.tell(gone)
        session.show(view.plan)


def _follow_ceilings(session: ProfileSession) -> None:
    """Once a device's ceilings are measured, the plan is asked for anew: its times rest on them."""
    if session.ceilings is None:
        return
    ended = engine().status(session.ceilings)
    if ended.is_over:
        session.ceilings = None
        session.remember(Key.PROFILE_PLANNED, None, None)
        session.tell(*_ending(ended))


def _ending(status: JobStatus) -> tuple[Notice, ...]:
    """What is said of a job that did not end well."""
    if status.state == "cancelled":
        return (Notice(kind="told", message="Cancelled; what was measured is kept."),)
    if status.state == "failed":
        return (
            Notice(
                kind="failed" if status.reference else "refused",
                message=status.reason,
                remedy=status.remedy,
                reference=status.reference,
            ),
        )
    return ()


def _planned(session: ProfileSession) -> tuple[Mapping[str, Any] | None, Notice | None]:
    """The cells of the plan with what each will take, or why there are none."""
    asked = arguments_of(session.view.plan, "")
    known = session.remembered(Key.PROFILE_PLANNED, asked)
    if known is None:
        try:
            known = engine().ask("profile_plan", asked), None
        except EngineUnavailable as error:
            return None, Notice.of(error)
        except AttnscopeError as error:
            known = None, Notice.of(error)
        session.remember(Key.PROFILE_PLANNED, asked, known)
    return known


def _before(session: ProfileSession, planned: Mapping[str, Any]) -> None:
    """The plan, and the ways to start it."""
    runs = [cell for cell in planned["cells"] if not (cell["skip"] or cell["refusal"])]
    largest = max((cell["predicted_bytes"] or 0 for cell in runs), default=0)
    left, right = st.columns([2.6, 1.0], gap="medium")
    with left:
        profile_plan.matrix(planned)
    with right, st.container(key="profile_start", gap="small"):
        st.html(
            f'<p class="pg-note">{count(len(runs))} of {count(len(planned["cells"]))} cells run here. The largest is '
            f"predicted to take {nbytes(largest)} of {nbytes(planned['room_bytes'])}.</p>"
        )
        act = _act(session, _apply)
        st.checkbox("Run what is predicted not to fit", key=Key.PROFILE_FORCE, on_change=act)
        st.checkbox(
            "Keep traces for Perfetto, and snapshots of CUDA memory",
            key=Key.PROFILE_TRACES,
            on_change=act,
        )
        left_over = _left_over(session)
        if left_over:
            st.button(
                f"Go on: {count(left_over)} left",
                on_click=_act(session, _go_on),
                width="stretch",
            )
        st.button(
            f"Measure {count(len(runs))} cells" if len(runs) != 1 else "Measure 1 cell",
            type="secondary" if left_over else "primary",
            on_click=_act(session, _start),
            disabled=not runs,
            width="stretch",
        )
        _ceilings(session, planned)


def _ceilings(session: ProfileSession, planned: Mapping[str, Any]) -> None:
    """What the least times rest on, and the way to measure it anew."""
    words = profile_plan.ceilings_words(planned["roofs"], planned["device"])
    st.html(f'<p class="pg-note">{html.escape(words)}</p>')
    st.button(
        "Find this device's ceilings anew" if planned["roofs"] else "Find this device's ceilings",
        key="profile_measure_ceilings",
        type="tertiary",
        help="A large matrix product in each dtype and a large copy, in turns: a few seconds.",
        on_click=_act(session, _measure_ceilings),
        disabled=session.ceilings is not None,
    )


def _left_over(session: ProfileSession) -> int:
    """Cells of the profile shown that have no record, as after a cancellation."""
    found = session.found
    return 0 if found is None else view_of(found["plan"]).cells - len(found["records"])


def _after(session: ProfileSession) -> None:
    """What was found."""
    found = session.found
    if found is None or not found["records"]:
        return
    look = theme(st.context.theme.type or "light")
    measured = [each for each in found["records"] if each["failure"] is None]
    chosen = session.view.record
    record = next((each for each in measured if each["id"] == chosen), (measured or [None])[-1])
    profile_found.charts(found, "" if record is None else record["id"], look=look)
    if record is not None:
        session.set_draft({Key.PROFILE_CELL: record["id"]})
        profile_found.cell(
            found,
            _detail(session, found["plan"]["profile"], record["id"]),
            record,
            look=look,
            on_choose=_act(session, _choose),
        )
    profile_found.absences(found)


def _detail(session: ProfileSession, profile: str, record: str) -> Mapping[str, Any]:
    known = session.remembered(Key.PROFILE_DETAIL, (profile, record))
    if known is None:
        known = engine().ask("profile_detail", {"profile": profile, "record": record})
        session.remember(Key.PROFILE_DETAIL, (profile, record), known)
    return known


def _backends(session: ProfileSession) -> tuple[BackendChoice, ...]:
    """Every backend, with why the worker's device refuses an ordinary call."""
    known = session.remembered(Key.PROFILE_OFFERED, session.view.device)
    if known is None:
        try:
            answer = engine().ask(
                "backends", {"device": session.view.device}, timeout_s=_BACKENDS_S
            )
        except EngineUnavailable:
            # The page hardly waits for a worker that is still starting; the next run asks again.
            return tuple(BackendChoice(name=name, title=name) for name in session.view.backends)
        known = backend_choices(answer["backends"])
        session.remember(Key.PROFILE_OFFERED, session.view.device, known)
    return known


# What the visitor's controls do; each runs before the page is drawn anew


def _act(session: ProfileSession, work: Callable[[ProfileSession], None]) -> Callable[[], None]:
    return control(session, lambda: work(session))


def _apply(session: ProfileSession) -> None:
    """Take the controls into the plan, or say why not and leave it as it was."""
    session.show(checked(_drafted(session)))
    session.tell()


def _start(session: ProfileSession) -> None:
    _apply(session)
    _submit(session, replace(session.view, profile=secrets.token_hex(16), record=""))


def _measure_ceilings(session: ProfileSession) -> None:
    asked = {"device": session.view.device}
    session.ceilings = engine().submit("ceilings", asked, owner=session.owner)
    session.tell()


def _go_on(session: ProfileSession) -> None:
    if session.found is not None:
        _submit(session, view_of(session.found["plan"]))
        session.set_draft(_drafts(session.view))


def _submit(session: ProfileSession, view: ProfileView) -> None:
    arguments = arguments_of(view, session.owner)
    session.job = engine().submit("profile", arguments, owner=session.owner)
    session.show(view)


def _choose(session: ProfileSession) -> None:
    session.show(replace(session.view, record=session.draft(Key.PROFILE_CELL) or ""))


def _drafted(session: ProfileSession) -> ProfileView:
    """The view that the controls ask for."""
    return replace(
        session.view,
        model=str(session.draft(Key.PROFILE_SOURCE) or "").strip() or "demo",
        revision=str(session.draft(Key.PROFILE_REVISION) or "").strip(),
        device=session.draft(Key.PROFILE_DEVICE) or "auto",
        backends=tuple(session.draft(Key.PROFILE_BACKENDS, ())),
        lengths=lengths_of(session.draft(Key.PROFILE_LENGTHS, "")),
        batches=batches_of(session.draft(Key.PROFILE_BATCHES, "")),
        phases=tuple(session.draft(Key.PROFILE_PHASES, ())),
        dtypes=tuple(session.draft(Key.PROFILE_DTYPES, ())),
        budget=budget_of(str(session.draft(Key.PROFILE_BUDGET, "")).strip()),
        force=bool(session.draft(Key.PROFILE_FORCE, False)),
        traces=bool(session.draft(Key.PROFILE_TRACES, False)),
    )


def _drafts(view: ProfileView) -> dict[Key, Any]:
    return {
        Key.PROFILE_SOURCE: view.model,
        Key.PROFILE_REVISION: view.revision,
        Key.PROFILE_DEVICE: view.device,
        Key.PROFILE_BACKENDS: list(view.backends),
        Key.PROFILE_LENGTHS: written(view.lengths),
        Key.PROFILE_BATCHES: written(view.batches),
        Key.PROFILE_PHASES: list(view.phases),
        Key.PROFILE_DTYPES: list(view.dtypes),
        Key.PROFILE_BUDGET: f"{view.budget:g}",
        Key.PROFILE_FORCE: view.force,
        Key.PROFILE_TRACES: view.traces,
    }
