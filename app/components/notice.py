"""A sentence to the visitor: what happened, what to do, and the code that finds it in the log."""

import html
import logging
import secrets
from collections.abc import Callable
from typing import Any

import streamlit as st

from attnscope.app.page_session import Notice, PageSession
from attnscope.kernels.errors import AttnscopeError

log = logging.getLogger("attnscope.pages")


def notice(told: Notice) -> None:
    """Draw one notice; its text is shown as text, whatever it holds."""
    st.html(notice_html(told))


def notice_html(told: Notice) -> str:
    """One notice as HTML."""
    remedy = f" <span>{html.escape(told.remedy)}</span>" if told.remedy else ""
    code = f" <code>reference {html.escape(told.reference)}</code>" if told.reference else ""
    role = "status" if told.kind == "told" else "alert"
    return (
        f'<div class="pg-told pg-{told.kind}" role="{role}">'
        f"<strong>{html.escape(told.message)}</strong>{remedy}{code}</div>"
    )


def unexpected(error: BaseException) -> Notice:
    """Log an error that nobody foresaw under a short code, and say so without its words."""
    reference = secrets.token_hex(4)
    log.error("page failed, reference %s", reference, exc_info=error)
    return Notice(
        kind="failed",
        message="This page met an error of its own; what you see may be incomplete.",
        remedy="Reload it. If it happens again, report this code with the log.",
        reference=reference,
    )


def guarded(
    work: Callable[[], None], tell: Callable[[Notice], None] = notice
) -> Callable[[], None]:
    """Wrap a page, a fragment or a callback: whatever goes wrong becomes a sentence, no traceback.

    Args:
        work: What to run.
        tell: Takes the sentence; draws it where the work stands unless given.
    """

    def run() -> None:
        try:
            work()
        except AttnscopeError as error:
            tell(Notice.of(error))
        except Exception as error:  # noqa: BLE001 - the page's boundary, the one place for it
            tell(unexpected(error))

    return run


def control(session: PageSession[Any], work: Callable[[], None]) -> Callable[[], None]:
    """Wrap a control's callback: it acts on the view that the session shows, and says what goes wrong.

    Args:
        session: The visitor's.
        work: What to run.
    """

    def run() -> None:
        session.keep()
        work()

    return guarded(run, tell=session.tell)
