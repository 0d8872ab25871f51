import pytest

from attnscope.app.jobs.profile_plan import planned, profile_plan
from attnscope.app.views.profile import ProfileView, arguments_of
from attnscope.kernels.errors import InvalidCall, ModelNotFound, PromptRefused, UnknownBackend
from attnscope.models.shape import shape_of
from attnscope.profiling.calculator import estimate
from tests.app.profiled import context_in, know_ceilings


def asked(**changed):
    return arguments_of(ProfileView(**changed), "me")


def test_each_cell_is_told_what_the_calculator_says(tmp_path):
    told = profile_plan(
        asked(backends=("eager", "tiled"), lengths=(16, 64), phases=("prefill", "decode")),
        context_in(tmp_path),
    )
    assert len(told["cells"]) == 8
    shape = shape_of("demo")
    for cell in told["cells"]:
        # A decoding step has the prompt's tokens and its own.
        length = cell["length"] + (cell["phase"] == "decode")
        names = ("backend", "phase", "batch", "dtype")
        same = {name: cell[name] for name in names}
        assert cell["predicted_bytes"] == estimate(shape, length=length, **same).total_bytes
        assert (cell["skip"], cell["refusal"]) == ("", "")
        assert cell["predicted_s"] is None
    assert told["roofs"] == {}
    assert told["max_length"] == 2048
    assert told["room_bytes"] > told["cells"][0]["predicted_bytes"]


def test_each_cell_has_its_least_time_once_the_ceilings_are_known(tmp_path):
    context = context_in(tmp_path)
    know_ceilings(context)
    told = profile_plan(asked(backends=("tiled",), lengths=(16, 64)), context)
    shorter, longer = (cell["predicted_s"] for cell in told["cells"])
    assert 0 < shorter < longer
    assert told["roofs"]["float32"]["origin"] == "measured"


def test_what_the_device_cannot_run_says_why(tmp_path):
    told = profile_plan(asked(backends=("sdpa_cudnn",), lengths=(16,)), context_in(tmp_path))
    assert "cuda only" in told["cells"][0]["refusal"]


def test_what_cannot_fit_is_skipped_unless_asked_for():
    cells = planned(asked(backends=("eager",), lengths=(16, 512)), room=20 * 2**20)
    assert [cell.skip is None for cell in cells] == [True, False]
    forced = planned(asked(backends=("eager",), lengths=(16, 512), force=True), room=20 * 2**20)
    assert [cell.skip for cell in forced] == [None, None]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"lengths": (2049,)}, PromptRefused, "2\u202f048 tokens at most"),
        ({"lengths": (2048,), "phases": ("decode",)}, PromptRefused, "token to decode included"),
        ({"backends": ("fast",)}, UnknownBackend, "fast"),
        ({"backends": ()}, InvalidCall, "nothing to measure"),
        ({"model": "/no/such/model"}, ModelNotFound, "/no/such/model"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(tmp_path, changed, error, words):
    with pytest.raises(error, match=words):
        profile_plan(asked(**changed), context_in(tmp_path))
