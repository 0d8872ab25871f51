"""What a page shows while the server that it asks is still starting."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from attnscope.app.jobs.access import engine
from attnscope.kernels.errors import EngineUnavailable

_WORDS = (
    '<p class="pg-note" role="status">Starting: PyTorch and transformers are being loaded. '
    "The page is drawn as soon as they are, some seconds after the server has started.</p>"
)


@contextmanager
def starting() -> Iterator[None]:
    """Say so above what is drawn inside, until that is drawn; nothing where workers answer at once."""
    if _answers():
        yield
        return
    place = st.empty()
    place.html(_WORDS)
    yield
    place.empty()


def _answers() -> bool:
    try:
        return engine().health()["status"] == "ok"
    except EngineUnavailable:
        return True  # the page says why
