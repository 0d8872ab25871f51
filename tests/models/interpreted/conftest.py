"""These tests run in Triton's interpreter: `tests/models/test_interpreted.py` starts them."""

from attnscope.kernels.triton.device import interpreted

collect_ignore_glob = [] if interpreted() else ["test_*.py"]
