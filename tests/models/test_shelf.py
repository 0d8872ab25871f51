"""Sharing models: loaded once, counted, put away by least use, never under a borrower."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from attnscope.kernels.errors import ModelNotFound, ModelTooLarge
from attnscope.models.shelf import ModelShelf


class Loader:
    """Counts what it loads; every model takes 40 bytes."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def __call__(self, source: str, *, memory_limit: int | None, **_others: object) -> Any:
        if source == "missing":
            raise ModelNotFound("There is no such model.")
        if memory_limit is not None and memory_limit < 40:
            raise ModelTooLarge("It does not fit.")
        self.loaded.append(source)
        return SimpleNamespace(title=source, nbytes=40)


@pytest.fixture
def loader() -> Loader:
    return Loader()


def _use(shelf: ModelShelf, *sources: str) -> None:
    for source in sources:
        with shelf.borrow(source):
            pass


def test_a_model_is_loaded_once(loader: Loader) -> None:
    shelf = ModelShelf(100, loader)
    with shelf.borrow("a") as first, shelf.borrow("a") as second:
        assert first is second
        assert shelf.held[0].borrowers == 2
    assert loader.loaded == ["a"]
    assert shelf.held[0].borrowers == 0
    assert shelf.nbytes == 40


def test_another_revision_is_another_model(loader: Loader) -> None:
    shelf = ModelShelf(100, loader)
    with shelf.borrow("a") as first, shelf.borrow("a", revision="v2") as second:
        assert first is not second


def test_the_least_recently_used_goes_first(loader: Loader) -> None:
    shelf = ModelShelf(100, loader)
    _use(shelf, "a", "b", "a", "c")
    assert [held.title for held in shelf.held] == ["c", "a"]


def test_a_borrowed_model_is_never_put_away(loader: Loader) -> None:
    shelf = ModelShelf(100, loader)
    with shelf.borrow("a"), shelf.borrow("b"):
        with pytest.raises(ModelTooLarge), shelf.borrow("c"):
            pytest.fail("there was no room")
        assert [held.title for held in shelf.held] == ["b", "a"]
    _use(shelf, "c")
    assert [held.title for held in shelf.held] == ["c", "b"]


def test_a_failed_load_leaves_no_place(loader: Loader) -> None:
    shelf = ModelShelf(100, loader)
    with pytest.raises(ModelNotFound), shelf.borrow("missing"):
        pytest.fail("there is no such model")
    assert shelf.held == ()
    assert shelf.nbytes == 0


def test_put_away_empties_the_shelf(loader: Loader) -> None:
    shelf = ModelShelf(None, loader)
    _use(shelf, "a", "b")
    with shelf.borrow("c"):
        assert shelf.put_away() == 2
        assert [held.title for held in shelf.held] == ["c"]


def test_two_visitors_at_once_wait_for_one_load(loader: Loader) -> None:
    entered = threading.Event()
    release = threading.Event()

    def slow(source: str, **others: object) -> Any:
        entered.set()
        release.wait(5)
        return loader(
            source, memory_limit=None, **{k: v for k, v in others.items() if k != "memory_limit"}
        )

    shelf = ModelShelf(None, slow)
    got: list[object] = []

    def visit() -> None:
        with shelf.borrow("a") as model:
            got.append(model)

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    assert entered.wait(5)
    release.set()
    for visitor in visitors:
        visitor.join(5)
    assert loader.loaded == ["a"]
    assert len(got) == 3
    assert len({id(model) for model in got}) == 1
