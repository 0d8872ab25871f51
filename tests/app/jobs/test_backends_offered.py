import pytest

from attnscope.app.jobs.backends_offered import offered
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.kernels.registry import BACKENDS
from tests.app.jobs.captures import made


@pytest.fixture
def context(tmp_path):
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


@pytest.mark.parametrize("capture", [None, made(16)])
def test_every_backend_is_named_with_its_refusal_in_words(context, capture):
    found = {each["name"]: each for each in offered(capture, context)}

    assert list(found) == [backend.name for backend in BACKENDS]
    assert found["eager"]["refusal"] is None
    assert len(found["sdpa_cudnn"]["refusal"]) > 20
    assert all(each["title"] for each in found.values())


def test_what_has_no_map_is_named_and_refused(context):
    found = {each["name"]: each for each in offered(None, context)}

    for name in ("linear", "performer", "linformer"):
        assert found[name]["exact"] is False
        assert "maps show are not those it used" in found[name]["refusal"]
        assert "Capture with an exact backend" in found[name]["refusal"]
