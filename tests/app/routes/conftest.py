"""The routes over a fake engine."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from attnscope.app.jobs import access
from attnscope.app.routes import jobs, maps, static
from attnscope.app.routes.security import SecurityHeaders
from tests.app.fake_engine import FakeEngine

APP = Starlette(
    routes=[*jobs.ROUTES, *maps.ROUTES, *static.ROUTES], middleware=[Middleware(SecurityHeaders)]
)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    with access.provided(engine):
        yield engine


@pytest.fixture
def client() -> TestClient:
    return TestClient(APP)
