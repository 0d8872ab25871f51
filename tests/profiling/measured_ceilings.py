"""Ceilings as a measurement would leave them."""

from attnscope.profiling.ceilings import DTYPES, Ceilings, Rate
from tests.profiling.records import RECORD

CEILINGS = Ceilings(
    measured="2026-11-27T10:00:00.000001+00:00",
    machine=RECORD.machine,
    products=tuple(
        Rate(of=dtype, per_second=5e10, p10=4e10, p90=6e10, runs=10, amount=2 * 1024**3)
        for dtype in DTYPES
    ),
    copy=Rate(of="copy", per_second=1e10, p10=9e9, p90=1.1e10, runs=10, amount=2**27),
)
