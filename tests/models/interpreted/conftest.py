"""These tests run in Triton's interpreter: `tests/models/test_interpreted.py` starts them."""

from attnscope.kernels.triton.device import interpreted
from tests.prepared_once import prepared_once

__all__ = ["prepared_once"]

collect_ignore_glob = [] if interpreted() else ["test_*.py"]
