"""Starts the tests of models on Triton kernels in the interpreter, which is chosen per process."""

from pathlib import Path

import pytest

from tests.interpreted import assert_passes_in_the_interpreter

FILES = sorted((Path(__file__).parent / "interpreted").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_passes_in_the_interpreter(path: Path) -> None:
    assert_passes_in_the_interpreter(path)
