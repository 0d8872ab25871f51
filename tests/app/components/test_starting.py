"""A page says that the server is starting for as long as nothing else is drawn."""

import pytest
from streamlit.testing.v1 import AppTest

from attnscope.app.jobs.access import provided
from tests.app.fake_engine import FakeEngine

SCRIPT = """
import streamlit as st
from attnscope.app.components.starting import starting

with starting():
    {done}
"""


class Starting(FakeEngine):
    def health(self):
        return {**super().health(), "status": "starting"}


@pytest.mark.parametrize(
    ("engine", "done", "said"),
    [
        (Starting(), "st.stop()", True),
        (Starting(), "st.text('the page')", False),
        (FakeEngine(), "st.stop()", False),
        (None, "st.stop()", False),
    ],
)
def test_it_is_said_until_the_page_is_drawn(engine, done: str, said: bool) -> None:
    with provided(engine):
        app = AppTest.from_string(SCRIPT.format(done=done)).run()
    assert not app.exception
    words = "".join(element.proto.body for element in app.get("html"))
    assert ("Starting" in words) is said
