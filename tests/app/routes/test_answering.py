import pytest

from attnscope.app.jobs import access
from attnscope.kernels.errors import (
    CaptureMissing,
    EngineUnavailable,
    InvalidCall,
    JobCancelled,
    ModelTooLarge,
    UnsupportedCall,
)
from tests.app.fake_engine import FakeEngine

CAPTURE = f"/attnscope/captures/{'c' * 32}"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CaptureMissing("It is gone.", "Run it again."), 410),
        (InvalidCall("There is no head 9."), 400),
        (UnsupportedCall("Not on a CPU."), 400),
        (EngineUnavailable("Being replaced."), 503),
        (JobCancelled("Cancelled."), 499),
        (ModelTooLarge("Does not fit."), 500),
    ],
)
def test_errors_are_json_with_a_status_and_a_remedy(client, error, status):
    with access.provided(FakeEngine(error)):
        response = client.get(f"{CAPTURE}/map")

    assert response.status_code == status
    assert response.json() == {"error": error.message, "remedy": error.remedy}
    assert response.headers["cache-control"] == "no-store"
    assert ("retry-after" in response.headers) is (status == 503)


def test_without_an_engine_it_says_how_to_start(client):
    response = client.get("/attnscope/health")
    assert response.status_code == 503
    assert "scripts/run" in response.json()["remedy"]
