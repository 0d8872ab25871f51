import pytest

from attnscope.app.jobs import access
from attnscope.kernels.errors import EngineUnavailable
from tests.app.fake_engine import FakeEngine


def test_the_engine_is_there_while_it_is_provided_and_not_after():
    given = FakeEngine()
    with access.provided(given):
        assert access.engine() is given
    with pytest.raises(EngineUnavailable, match="attnscope serve"):
        access.engine()


def test_it_is_withdrawn_when_the_server_fails():
    with pytest.raises(OSError, match="port"), access.provided(FakeEngine()):
        raise OSError("port in use")
    with pytest.raises(EngineUnavailable):
        access.engine()
