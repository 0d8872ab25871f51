"""These tests run in Triton's interpreter: `tests/models/test_interpreted.py` starts them."""

from attnscope.kernels.triton.device import interpreted
from tests.quick_interpreter import quick_interpreter

__all__ = ["quick_interpreter"]

collect_ignore_glob = [] if interpreted() else ["test_*.py"]
