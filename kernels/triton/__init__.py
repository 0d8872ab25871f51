"""Kernels written in Triton, one family a file. Only these files import Triton."""
