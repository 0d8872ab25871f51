"""What the Calculator's questions ask of a backend: the length of the question, and no other."""

from pathlib import Path
from typing import Any

import pytest

from attnscope.app.files.calculation import device_of
from attnscope.app.jobs.calculation_plan import plan_asked, shape_asked
from attnscope.app.jobs.calculations import contenders, devices, reach
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.calculator import CalculatorView
from attnscope.kernels.errors import UnsupportedCall


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


def asked(context: Context, length: int) -> tuple[dict[str, Any], dict[str, Any]]:
    view = CalculatorView(model="demo", length=length, backend="triton_decode", phase="prefill")
    return view.questions(device_of(view, devices({}, context)))


def line(found: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in found["lines"] if each["name"] == "triton_decode")


@pytest.mark.parametrize("length", [9, 300, 5000])
def test_a_refusal_names_the_length_that_was_asked_for(context: Context, length: int) -> None:
    _, here = asked(context, length)
    with pytest.raises(UnsupportedCall, match=f"up to 8 queries, and the call has {length}"):
        plan_asked(shape_asked(here, context), here)
    assert f"the call has {length}" in line(contenders(here, context))["refusal"]


def test_a_few_queries_are_taken_and_no_line_is_drawn_over_length(context: Context) -> None:
    plan, here = asked(context, 8)
    assert line(contenders(here, context))["total_bytes"] > 0
    assert "refusal" in line(reach(plan, context))
