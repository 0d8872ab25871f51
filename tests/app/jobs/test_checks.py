from dataclasses import replace

import pytest

from attnscope.app.jobs.checks import CheckFolder
from attnscope.kernels.errors import JobMissing
from tests.app.checked import ARGUMENTS, CHECK, EAGER, FACTS, LINEAR, RESULTS, WRONG


@pytest.fixture
def folder(tmp_path):
    return CheckFolder(tmp_path, CHECK)


def test_what_was_asked_and_found_comes_back(folder):
    folder.begin(ARGUMENTS, FACTS)
    assert folder.results() == ()
    for result in RESULTS:
        folder.add(result)
    assert (folder.asked(), folder.facts()) == (ARGUMENTS, FACTS)
    assert folder.results() == RESULTS


def test_a_later_result_of_a_backend_takes_the_place_of_the_first(folder):
    folder.begin(ARGUMENTS, FACTS)
    for result in (replace(EAGER, timing=None), WRONG, EAGER):
        folder.add(result)
    assert folder.results() == (EAGER, WRONG)


def test_half_a_line_is_not_read_yet(folder):
    folder.begin(ARGUMENTS, FACTS)
    folder.add(EAGER)
    with (folder.path / "results.jsonl").open("a") as file:
        file.write('{"name": "tiled", "ti')
    assert folder.results() == (EAGER,)


def test_a_job_that_is_run_again_begins_anew(folder):
    folder.begin(ARGUMENTS, FACTS)
    folder.add(LINEAR)
    folder.begin(ARGUMENTS, FACTS)
    assert folder.results() == ()


@pytest.mark.parametrize("check", ["", "../../etc", "A" * 32, "a" * 31])
def test_no_other_folder_is_ever_read(tmp_path, check):
    with pytest.raises(JobMissing):
        CheckFolder(tmp_path, check)


def test_a_check_that_was_never_begun_says_so(folder):
    with pytest.raises(JobMissing, match="not on this server"):
        folder.asked()
