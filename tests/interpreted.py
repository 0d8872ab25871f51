"""Running tests of Triton kernels in Triton's interpreter, in a process of their own.

Triton reads TRITON_INTERPRET when it is imported, and with it set FlexAttention no longer compiles:
the tests in folders named `interpreted` are collected only by a process that was started for them.
"""

import os
import subprocess
import sys
from pathlib import Path

from attnscope.kernels.triton.device import interpreted

ROOT = Path(__file__).parents[1]


def left_out() -> list[str]:
    """For `collect_ignore_glob` of such a folder: everything, unless this process interprets."""
    return [] if interpreted() else ["test_*.py"]


def assert_passes_in_the_interpreter(path: Path) -> None:
    """Runs a file of tests in a process that interprets, and fails with its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(path)]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
