"""What is left, by the machine and by the container."""

from pathlib import Path

import psutil
import pytest
import torch

from attnscope.models import memory


def _group(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


@pytest.mark.parametrize(
    ("limit", "used", "inactive", "left"),
    [("1000", 600, 0, 400), ("1000", 900, 300, 400), ("100", 900, 0, 0)],
)
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: int, inactive: int, left: int
) -> None:
    _group(tmp_path, limit, used, inactive)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes(torch.device("cpu")) == left


@pytest.mark.parametrize("limit", ["max", "100000000000000000"])
def test_without_a_tighter_limit_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    _group(tmp_path, limit, 0)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    total = psutil.virtual_memory().total
    assert 0 < memory.available_bytes(torch.device("cpu")) <= total


def test_no_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    assert memory.available_bytes(torch.device("cpu")) > 0


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (300 << 20, "300 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert memory.in_words(count) == words
