"""A control that shows a part of the view, and changes it."""

from collections.abc import Callable
from typing import Any

from attnscope.app.components.notice import control
from attnscope.app.page_session import PageSession


def widget(
    session: PageSession[Any], key: str, shown: Any, take: Callable[[Any], None]
) -> dict[str, Any]:
    """The key and the callback of a widget.

    Args:
        session: The visitor's.
        key: Of the widget.
        shown: What it shows.
        take: Given what it holds once that is another value; before the page is drawn anew.
    """
    session.set_draft({key: shown})

    def changed() -> None:
        value = session.draft(key)
        # A browser that lags behind the page may send a control that is gone, as it was drawn.
        if value is None or value == shown:
            return
        session.tell()
        take(value)

    return {"key": key, "on_change": control(session, changed)}
