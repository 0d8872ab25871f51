"""The model run beside itself for the page Sparsity: asked for, followed, and found again; nothing here is drawn."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.components.capture_head import ended_badly
from attnscope.app.jobs.access import engine
from attnscope.app.page_session import Notice
from attnscope.app.state import Key
from attnscope.app.views.sparsity import APPROXIMATE, SparsitySession
from attnscope.kernels.errors import AttnscopeError, InvalidCall, JobMissing

Answer = Mapping[str, Any]


def start_run(session: SparsitySession, shown: Shown, assignment: Answer | None) -> None:
    """Ask for the run that the view describes.

    Raises:
        AttnscopeError: The queue does not take it, or patterns by head are meant and not known yet: the
            button may be pressed as an earlier run of the script drew it.
    """
    view = session.view
    if view.by_head and assignment is None:
        raise InvalidCall(
            "The patterns by head are not ready.", "Run the model once they are drawn."
        )
    arguments = run_arguments(session, shown, assignment)
    session.run_job = engine().submit("sparsity_run", arguments, owner=session.owner)
    session.show(replace(view, ran=arguments["run"]))


def run_arguments(
    session: SparsitySession, shown: Shown, assignment: Answer | None
) -> dict[str, Any]:
    """The arguments of the job, with the id by which its result is found: the same for the same run."""
    view = session.view
    approximates = view.run in APPROXIMATE
    of_family = view.run == "pattern" and not view.fitted
    described = view.described(view.pattern, causal=False) if of_family else None
    asked: dict[str, Any] = {
        "source": view.model,
        "revision": view.revision or None,
        "device": view.device,
        "dtype": view.dtype,
        "capture": shown.capture_id,
        "sequence": view.sequence,
        "backend": view.run if approximates else view.run_backend,
        "new_tokens": view.new_tokens if generates(shown) else 0,
        "timed": view.timed,
        "pattern": described,
        "layers": list(view.run_layers) or None,
        "assignment": assignment["json"] if assignment else None,
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    return {**asked, "run": name}


def follow_run(session: SparsitySession, shown: Shown, assignment: Answer | None) -> Answer | None:
    """What the run shown found; None while it is under way, or where none is shown.

    A job of this run is found again after a reload, and so is what an earlier one left.
    """
    ran = session.view.ran
    if not ran:
        return None
    found = session.held(Key.SPARSITY_RAN, ran)
    if found is not None:
        return found
    if session.run_job is None:
        arguments = run_arguments(session, shown, assignment)
        if arguments["run"] == ran:
            session.run_job = engine().under_way("sparsity_run", arguments, owner=session.owner)
    if session.run_job is not None:
        return _run_ended(session, session.run_job, ran)
    try:
        found = engine().ask("sparsity_ran", {"capture": shown.capture_id, "run": ran})
    except JobMissing as error:
        session.tell(*session.notices, Notice(kind="told", message=error.message))
        session.show(replace(session.view, ran=""))
        return None
    session.hold(Key.SPARSITY_RAN, ran, found)
    return found


def _run_ended(session: SparsitySession, job: str, ran: str) -> Answer | None:
    status = engine().status(job)
    if not status.is_over:
        return None
    session.run_job = None
    try:
        found = engine().result(job)
    except AttnscopeError as error:
        session.tell(ended_badly(status, error))
        session.show(replace(session.view, ran=""))
        return None
    session.hold(Key.SPARSITY_RAN, ran, found)
    return found


def generates(shown: Shown) -> bool:
    """Whether the model goes on with a text; an encoder does not."""
    return shown.model.get("kind") != "encoder"


def exact_backends(choices: Sequence[Any]) -> list[str]:
    """Names of the backends that compute a pattern exactly and run here."""
    return [each.name for each in choices if each.exact and not each.refusal]
