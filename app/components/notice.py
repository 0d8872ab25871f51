"""A sentence to the visitor: what was refused or broke, what to do, and the code that finds it in the log."""

import html
import logging
import secrets

import streamlit as st

from attnscope.app.state import Notice

log = logging.getLogger("attnscope.pages")


def notice(told: Notice) -> None:
    """Draw one notice; its text is shown as text, whatever it holds."""
    remedy = f" <span>{html.escape(told.remedy)}</span>" if told.remedy else ""
    code = f" <code>{html.escape(told.reference)}</code>" if told.reference else ""
    role = "status" if told.kind == "told" else "alert"
    st.html(
        f'<div class="as-told as-{told.kind}" role="{role}">'
        f"<strong>{html.escape(told.message)}</strong>{remedy}{code}</div>"
    )


def unexpected(error: BaseException) -> Notice:
    """Log an error that nobody foresaw under a short code, and say so without its words."""
    reference = secrets.token_hex(4)
    log.error("page failed, reference %s", reference, exc_info=error)
    return Notice(
        kind="failed",
        message="This page met an error of its own; what you see may be incomplete.",
        remedy="Reload it. If it happens again, report this code with the log:",
        reference=reference,
    )
