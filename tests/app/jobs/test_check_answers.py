import pytest

from attnscope.app.jobs.answers import ASKS
from attnscope.app.views.backends import BackendsView, model_of
from attnscope.kernels.errors import JobMissing, ModelNotFound
from attnscope.kernels.registry import BACKENDS
from tests.app.checked import ARGUMENTS, CHECK, FACTS, RESULTS, context_in


def test_what_can_run_is_known_before_anything_is_run(tmp_path):
    answer = ASKS["check_offered"].answer(model_of(BackendsView()), context_in(tmp_path))
    offered = {each["name"]: each for each in answer["backends"]}
    assert list(offered) == [backend.name for backend in BACKENDS]
    assert offered["eager"]["reason"] == offered["linear"]["reason"] == ""
    assert "cuda only" in offered["sdpa_cudnn"]["reason"]
    assert offered["sdpa_cudnn"]["remedy"]
    assert "causal" in offered["linformer"]["reason"]
    assert (answer["layers"], answer["device"], answer["max_length"]) == (4, "cpu", 2048)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelNotFound):
        ASKS["check_offered"].answer(
            model_of(BackendsView(model="/no/such/model")), context_in(tmp_path)
        )


def test_a_check_is_told_as_far_as_it_came(tmp_path):
    context = context_in(tmp_path, *RESULTS[:2])
    found = ASKS["check"].answer({"check": CHECK}, context)
    assert (found["asked"], found["facts"]) == (ARGUMENTS, FACTS)
    assert [each["name"] for each in found["results"]] == ["eager", "sdpa_flash"]


def test_a_check_of_elsewhere_says_so(tmp_path):
    with pytest.raises(JobMissing):
        ASKS["check"].answer({"check": "0" * 32}, context_in(tmp_path))
