"""A check as a worker leaves it: one backend right, one wrong, one that approximates, one refused."""

from dataclasses import replace
from pathlib import Path

from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.backends import BackendsView, arguments_of
from attnscope.profiling.attention_path import Executed
from attnscope.profiling.backend_check import BackendResult, LogitDifference
from attnscope.profiling.fault_causes import Cause
from attnscope.profiling.head_errors import Cell, HeadError
from attnscope.profiling.json_data import to_data
from attnscope.profiling.measured import Measured
from attnscope.profiling.record import Failure
from tests.profiling.records import RECORD, TIMING

CHECK, OWNER = "fedcba9876543210" * 2, "me"
TEXT = "one two three <b>four</b> five six"
VIEW = BackendsView(texts=(TEXT,), check=CHECK)
ARGUMENTS = arguments_of(VIEW, (TEXT,), OWNER)
TOKENS = [TEXT.split(" ")]
FACTS = {
    "model": {
        "title": "Demo model",
        "source": "demo",
        "revision": None,
        "device": "cpu",
        "dtype": "float32",
        "nbytes": 7_000_000,
        "max_length": 2048,
        "layers": 2,
        "has_chat_template": False,
    },
    "machine": to_data(RECORD.machine),
    "created": "2026-11-27T10:00:00.000001+00:00",
    "tokens": TOKENS,
}


def head(layer: int, index: int, relative: float | None, cell: Cell | None = None) -> HeadError:
    """One head; with two wrong queries where it has a wrong cell."""
    return HeadError(
        layer=layer,
        head=index,
        relative=relative,
        largest=None if relative is None else 2 * relative,
        allowed=1e-5,
        wrong_queries=2 if cell else 0,
        wrong_from=3 if cell else None,
        wrong_to=4 if cell else None,
        cell=cell,
    )


EAGER = BackendResult(
    name="eager",
    title="Dense",
    exact=True,
    heads=(head(0, 0, 1e-7), head(0, 1, 4e-7), head(1, 0, 2e-7), head(1, 1, 3e-7)),
    logits=LogitDifference(largest=Measured(2e-5), agreement=Measured(1.0), positions=6),
    timing=replace(TIMING, samples_s=(0.2,) * 20),
    peak=RECORD.peak,
    attention=Executed(asked="eager", ran=(("dense", 2),), kernels=("aten::bmm",)),
)
FLASH = replace(
    EAGER,
    name="sdpa_flash",
    title="SDPA flash",
    timing=replace(TIMING, samples_s=(0.1,) * 10 + (0.3,) * 10),
    attention=Executed(asked="sdpa_flash", ran=(("math", 2),), kernels=("aten::bmm",)),
)
REFUSED = BackendResult(
    name="triton",
    title="Triton flash",
    exact=True,
    failure=Failure(outcome="refused", reason="Triton flash: needs <a> GPU.", remedy="Use tiled."),
)
WRONG = BackendResult(
    name="tiled",
    title="Tiled",
    exact=True,
    heads=(
        head(0, 0, 1e-7),
        head(0, 1, None, Cell(sequence=0, query=1, channel=0, found=None, right=0.25)),
        head(1, 0, 3e-2, Cell(sequence=0, query=3, channel=5, found=0.5, right=0.25)),
        head(1, 1, 1e-7),
    ),
    cause=Cause(
        layer=1, head=0, query=3, key=4, words="Query 3 sees key 4, the one after it, and so on."
    ),
    logits=LogitDifference(
        largest=Measured.missing("the logits hold NaN"),
        agreement=Measured.missing("the logits hold NaN"),
        positions=6,
    ),
    failure=Failure(outcome="wrong", reason="2 heads in 2 layers err", remedy="Use another."),
)
LINEAR = replace(
    EAGER,
    name="linear",
    title="Linear",
    exact=False,
    heads=tuple(
        head(layer, index, 0.5, Cell(sequence=0, query=1, channel=0, found=1.0, right=2.0))
        for layer in range(2)
        for index in range(2)
    ),
    timing=None,
)
RESULTS = (EAGER, FLASH, REFUSED, WRONG, LINEAR)


def context_in(data: Path, *results: BackendResult, check: str = CHECK) -> Context:
    """A worker's view of a data folder, with a check in it where there are results."""
    context = Context(settings=Settings(data=data), device="cpu", resources=Resources())
    if results:
        folder = CheckFolder(context.settings.checks_folder, check)
        folder.begin({**ARGUMENTS, "check": check}, FACTS)
        for result in results:
            folder.add(result)
    return context
