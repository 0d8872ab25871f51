import pytest

from attnscope.app.routes.visitor import COOKIE, owner_of


def test_one_browser_is_one_owner_and_its_cookie_stays_secret():
    value = "0123456789abcdef" * 2
    owner = owner_of({COOKIE: value})

    assert owner == owner_of({COOKIE: value, "other": "x"})
    assert owner != owner_of({COOKIE: "f" * 32})
    assert owner is not None
    assert owner not in value


@pytest.mark.parametrize(
    "cookies", [{}, {COOKIE: ""}, {COOKIE: "x" * 32}, {COOKIE: "a" * 33}, {COOKIE: "a" * 31 + "\n"}]
)
def test_anything_else_is_nobody(cookies):
    assert owner_of(cookies) is None
