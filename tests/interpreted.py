"""Running tests of Triton kernels in Triton's interpreter, in a process of their own.

Triton reads TRITON_INTERPRET when it is imported, and with it set FlexAttention no longer compiles:
such tests are collected only by a process that was started for them.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def assert_passes_in_the_interpreter(path: Path) -> None:
    """Runs a file of tests in a process that interprets, and fails with its output."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(path)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
