from dataclasses import replace
from itertools import pairwise

import pytest

from attnscope.app.jobs import check_work, work
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.checks import CheckFolder
from attnscope.app.views.backends import BackendsView, arguments_of
from attnscope.kernels import registry
from attnscope.kernels.errors import JobCancelled, PromptRefused
from tests.app.checked import CHECK, TEXT, context_in

VIEW = BackendsView(texts=(TEXT,), check=CHECK)
QUICK = [each for each in registry.BACKENDS if each.name in ("eager", "tiled", "sdpa_cudnn")]


@pytest.fixture(autouse=True)
def few_and_quick(monkeypatch):
    import torch

    torch.set_num_threads(1)
    monkeypatch.setattr(registry, "BACKENDS", tuple(QUICK))
    monkeypatch.setattr(check_work, "BUDGET_S", 0.2)


def test_every_backend_is_checked_and_told_as_it_comes(tmp_path):
    told = []
    context = context_in(tmp_path)
    context.report = told.append
    assert work.WORK["check_backends"](arguments_of(VIEW, (TEXT,), "me"), context) == {
        "check": CHECK
    }

    found = ASKS["check"].answer({"check": CHECK}, context)
    assert found["asked"]["texts"] == [TEXT]
    assert found["facts"]["model"]["source"] == "demo"
    assert "".join(found["facts"]["tokens"][0]).endswith(TEXT)
    assert [(each["name"], each["verdict"]) for each in found["results"]] == [
        ("eager", "exact"),
        ("sdpa_cudnn", "refused"),
        ("tiled", "exact"),
    ]
    eager, refused, tiled = found["results"]
    assert eager["speed_up"] == 1.0
    assert eager["shortened"]
    assert len(tiled["heads"]) == 4 * 8
    assert refused["seconds"] is None
    assert refused["remedy"]
    assert all(one.share <= two.share for one, two in pairwise(told))
    assert any(progress.step.startswith("tiled: layer 3") for progress in told)


def test_a_cancellation_keeps_what_was_found(tmp_path):
    context = context_in(tmp_path)

    def stop(progress):
        if progress.step.startswith("tiled"):
            context.stop.set()

    context.report = stop
    with pytest.raises(JobCancelled):
        check_work.check_backends(arguments_of(VIEW, (TEXT,), "me"), context)
    folder = CheckFolder(context.settings.checks_folder, CHECK)
    assert [each.name for each in folder.results()] == ["eager", "sdpa_cudnn"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"texts": ["word " * 3000]}, "tokens long"), ({"chat": True}, "no chat template")],
)
def test_a_prompt_that_cannot_be_read_is_refused(tmp_path, changes, words):
    arguments = arguments_of(replace(VIEW), (TEXT,), "me") | changes
    with pytest.raises(PromptRefused, match=words):
        check_work.check_backends(arguments, context_in(tmp_path))
