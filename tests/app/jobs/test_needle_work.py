"""The job and its questions, with the demo model: what is written down, found again, and gone on with."""

from dataclasses import replace

import pytest

from attnscope.app.jobs import work
from attnscope.app.jobs.answers import ASKS
from attnscope.app.jobs.needles import NeedleFolder
from attnscope.app.needles_offered import Setting
from attnscope.app.views.needle import NeedleView, arguments_of
from attnscope.kernels.errors import InvalidCall, JobCancelled, JobMissing
from tests.app.needles import FACTS, RUN, TRIALS, context_in

VIEW = NeedleView(lengths=(64, 96), depths=(0, 50), seeds=1)
ARGUMENTS = arguments_of(VIEW, VIEW.setting, "")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def test_a_run_is_written_down_cell_by_cell_and_goes_on_where_it_was_cancelled(tmp_path):
    context = context_in(tmp_path)

    def stop(progress):
        if "trial 3" in progress.step:
            context.stop.set()

    context.report = stop
    with pytest.raises(JobCancelled):
        work.WORK["needle"](ARGUMENTS, context)
    asked = {"run": ARGUMENTS["run"]}
    before = ASKS["needle"].answer(asked, context)
    assert before["trials"] == 2
    context.stop.clear()
    context.report = lambda progress: None
    assert work.WORK["needle"](ARGUMENTS, context) == asked
    found = ASKS["needle"].answer(asked, context)
    assert [(cell["length"], cell["depth"]) for cell in found["cells"]] == [
        (64, 0),
        (64, 50),
        (96, 0),
        (96, 50),
    ]
    assert found["cells"][:2] == before["cells"]
    assert found["facts"]["created"] == before["facts"]["created"]
    assert found["asked"] == ARGUMENTS
    assert len(found["heads"]) == 32

    cell = ASKS["needle_cell"].answer({**asked, "length": 64, "depth": 0}, context)
    (trial,) = cell["trials"]
    assert trial["same_tokens"]
    assert trial["expected"] in trial["text"]
    assert trial["text"].endswith(cell["trials"][0]["excerpt"][-1][1])
    shares = [sum(part[2][3] for part in cell["attention"][name]) for name in ("last", "answer")]
    assert shares == pytest.approx([1, 1], abs=1e-3)


def test_a_pattern_and_prose_of_ones_own_are_heeded(tmp_path):
    context = context_in(tmp_path)
    narrow = Setting(pattern="sliding_window", window=8)
    text = "The barn was red. " * 40
    view = replace(VIEW, lengths=(96,), depths=(10,))
    arguments = arguments_of(view, narrow, text)
    work.WORK["needle"](arguments, context)
    asked = {"run": arguments["run"], "length": 96, "depth": 10}
    cell = ASKS["needle_cell"].answer(asked, context)
    assert "The barn was red." in cell["trials"][0]["text"]
    needle = cell["attention"]["answer"][cell["parts"].index("needle")]
    assert {mass for heads in needle for mass in heads} == {0.0}
    found = ASKS["needle"].answer({"run": arguments["run"]}, context)
    assert "window 8" in found["facts"]["pattern"]


def test_trials_of_another_revision_are_not_gone_on_with(tmp_path):
    folder = NeedleFolder(tmp_path, RUN)
    folder.begin({}, FACTS)
    folder.add(TRIALS[0])
    folder.begin({}, {**FACTS, "created": "later"})
    assert len(folder.trials()) == 1
    folder.begin({}, {**FACTS, "changed": 2})
    assert folder.trials() == {}


def test_heads_are_ranked_over_the_trials_answered_exactly(tmp_path):
    found = ASKS["needle"].answer({"run": RUN}, context_in(tmp_path, *TRIALS))
    assert found["judged"] == 5
    assert [(each["layer"], each["head"], each["copied"]) for each in found["heads"]] == [
        (1, 1, 1.0),
        (0, 1, 0.5),
        (0, 0, 0.0),
    ]
    cells = {(each["length"], each["depth"]): each for each in found["cells"]}
    assert (cells[128, 50]["exact"], cells[128, 50]["trials"]) == (1, 2)
    assert cells[128, 50]["log_probability"] == -3.25
    assert cells[128, 50]["rank"] == 20.5


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    folder = NeedleFolder(tmp_path, RUN)
    folder.begin({}, FACTS)
    folder.add(TRIALS[0])
    with (folder.path / "trials.jsonl").open("a") as file:
        file.write('{"length": 64, "dep')
    assert list(folder.trials()) == [(64, 0, 0)]


def test_what_is_not_there_is_told(tmp_path):
    context = context_in(tmp_path, TRIALS[0])
    with pytest.raises(JobMissing):
        ASKS["needle"].answer({"run": "0" * 32}, context)
    with pytest.raises(JobMissing):
        ASKS["needle"].answer({"run": "../.."}, context)
    with pytest.raises(InvalidCall, match="No trial"):
        ASKS["needle_cell"].answer({"run": RUN, "length": 128, "depth": 0}, context)
