"""Ablations in the worker: under the backends of the capture they are of, kept beside it, and cancelled."""

import json
from typing import Any

import pytest
import torch

from attnscope.app.jobs.answers import shelf
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.work import WORK
from attnscope.app.settings import Settings
from attnscope.kernels.errors import JobCancelled
from attnscope.models import interventions
from attnscope.models.capture import capture
from attnscope.models.interventions import Intervention, ablate
from attnscope.models.loading import LoadedModel, load

TEXTS = ("Mara found the silver key.", "Later Mara found the silver")
BACKENDS = {0: "tiled", 1: "eager", 2: "sdpa_flash", 3: "eager"}
ASKED: dict[str, Any] = {
    "source": "demo",
    "revision": None,
    "device": "cpu",
    "dtype": "auto",
    "capture": "c" * 32,
    "sequence": 1,
    "way": "zero",
    "rule": "",
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.set_num_threads(1)
    return load("demo")


@pytest.fixture
def context(tmp_path, model: LoadedModel) -> Context:
    context = Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())
    shelf(context).add("c" * 32, capture(model, TEXTS, backend=BACKENDS))
    return context


def test_the_prompt_and_the_backends_are_those_of_the_capture(
    context: Context, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def noted(*given: Any, **named: Any) -> Any:
        ran.append(named["backend"])
        return ablate(*given, **named)

    monkeypatch.setattr(interventions, "ablate", noted)
    asked = {**ASKED, "heads": [[1, 0]]}
    found = json.loads(json.dumps(WORK["ablation"](asked, context)))
    assert ran == [BACKENDS]
    alone = ablate(model, TEXTS[1], intervention=Intervention(heads=((1, 0),)))
    assert found["losses"][1] == pytest.approx(alone.loss_t.after, rel=1e-4, abs=1e-5)
    assert found["positions"] == list(alone.positions_m)
    assert [tokens[0][0] for tokens in found["next"]] == [each[0].text for each in alone.next_m]
    assert WORK["ablation"](asked, context) == found
    assert len(ran) == 1


def test_cancelling_ends_a_sweep_and_keeps_nothing(context: Context) -> None:
    context.give_way = lambda stop: stop.set()
    with pytest.raises(JobCancelled):
        WORK["ablation_sweep"](ASKED, context)
    assert not list(context.settings.captures_folder.glob("*/sweep-*"))
