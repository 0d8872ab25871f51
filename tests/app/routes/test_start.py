import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from attnscope.app.routes.start import ROUTES


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/inspect", "./"),
        ("/inspect?layer=2&head=5", "./?layer=2&head=5"),
        ("/inspect?prompt=a%26b", "./?prompt=a%26b"),
    ],
)
def test_the_name_of_inspect_leads_to_the_root_with_its_view(asked, led_to):
    response = TestClient(Starlette(routes=list(ROUTES))).get(asked, follow_redirects=False)

    assert response.status_code == 307
    assert response.headers["location"] == led_to
