"""Runs Gluon kernels for Hopper on the CPU, from their own source, in orders that a seed draws.

For tests only. Partitions run one at a time; copies and products of matrices finish at any later
moment; shared memory is NaN before it is written and while it is being written. What is found:
results that depend on the order; reads and writes of shared memory that no wait puts in order, in
whatever order they happened (`machine`); products used before they are waited for; barriers that
count wrongly; waits without end. What is not: layouts, registers, and what a compiler does.
"""

from tests.kernels.triton.gluon_simulator.machine import Hazard
from tests.kernels.triton.gluon_simulator.simulate import simulated

__all__ = ["Hazard", "simulated"]
