import os
from pathlib import Path

import pytest

from attnscope.app.jobs.shelf import CaptureShelf
from attnscope.kernels.errors import CaptureMissing


class Paper:
    """A capture of so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def save(self, folder: Path) -> None:
        (folder / "data").write_bytes(b"x" * self.nbytes)

    @classmethod
    def load(cls, folder: Path) -> "Paper":
        return cls((folder / "data").stat().st_size)


class Torn(Paper):
    def save(self, folder: Path) -> None:
        super().save(folder)
        raise OSError("the disk is full")


@pytest.fixture
def loads():
    return []


@pytest.fixture
def shelf(tmp_path, loads):
    def load(folder):
        loads.append(folder.name)
        return Paper.load(folder)

    return CaptureShelf(tmp_path, load, memory_bytes=250, disk_bytes=350)


def put(shelf, name, nbytes=100):
    capture_id = shelf.id_of(name)
    shelf.add(capture_id, Paper(nbytes))
    return capture_id


def test_a_capture_is_loaded_once_and_found_by_another_process(shelf, tmp_path, loads):
    a = put(shelf, "a")
    assert shelf.get(a).nbytes == 100
    shelf.get(a)
    assert loads == [a]

    other = CaptureShelf(tmp_path, Paper.load, memory_bytes=250, disk_bytes=350)
    assert other.get(a).nbytes == 100
    assert other.id_of("a") == a


def test_the_id_depends_on_the_folders_secret(shelf, tmp_path):
    other = CaptureShelf(tmp_path / "other", Paper.load, memory_bytes=1, disk_bytes=1)
    assert shelf.id_of("a") != other.id_of("a")
    assert shelf.id_of("a") != shelf.id_of("b")


def test_the_least_used_is_closed_over_the_memory_limit(shelf, loads):
    a, b, c = (put(shelf, name) for name in "abc")
    for name in (a, b, a, c, a, b):
        shelf.get(name)
    assert loads == [a, b, c, b]


def test_the_least_used_is_deleted_over_the_disk_limit(shelf, tmp_path):
    a, b, c = (put(shelf, name) for name in "abc")
    for age, name in enumerate((b, c, a)):
        os.utime(tmp_path / name, (1000 + age, 1000 + age))

    d = put(shelf, "d")

    with pytest.raises(CaptureMissing, match="made room"):
        shelf.get(b)
    assert [shelf.holds(name) for name in (a, b, c, d)] == [True, False, True, True]


def test_use_keeps_a_capture_from_deletion(shelf, tmp_path):
    a, _b, _c = (put(shelf, name) for name in "abc")
    for folder in tmp_path.iterdir():
        os.utime(folder, (1000, 1000))
    shelf.get(a)
    put(shelf, "d")
    put(shelf, "e")
    assert shelf.holds(a)


def test_one_larger_than_the_disk_limit_stays_alone(shelf):
    a = put(shelf, "a")
    big = put(shelf, "big", 10_000)
    assert (shelf.holds(a), shelf.holds(big)) == (False, True)


def test_a_torn_save_leaves_nothing(shelf, tmp_path):
    with pytest.raises(OSError, match="full"):
        shelf.add(shelf.id_of("torn"), Torn(10))
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(
    "name", ["..", "../x", "", "a" * 32, "A" * 32, "secret", "a" * 31 + "\n", "/etc"]
)
def test_hostile_ids_are_only_missing(shelf, name):
    put(shelf, "a")
    with pytest.raises(CaptureMissing):
        shelf.get(name)


def test_what_cannot_be_read_any_more_is_removed_and_made_anew(tmp_path):
    def load(folder):
        if (folder / "data").stat().st_size == 100:
            raise CaptureMissing(f"The capture in {folder} is of version 1.", "Run it again.")
        return Paper.load(folder)

    shelf = CaptureShelf(tmp_path, load, memory_bytes=250, disk_bytes=350)
    old = put(shelf, "a", 100)
    with pytest.raises(CaptureMissing) as caught:
        shelf.get(old)
    assert str(tmp_path) not in str(caught.value)
    assert not shelf.holds(old)
    put(shelf, "a", 120)
    assert shelf.holds(old)
