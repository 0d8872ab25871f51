"""These tests run in Triton's interpreter, in a process of their own: see tests/interpreted.py."""

from tests.interpreted import left_out

collect_ignore_glob = left_out()
