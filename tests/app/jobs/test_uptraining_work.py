from pathlib import Path

import pytest

from attnscope.app.jobs import uptraining_work
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.mechanism_folder import MechanismFolder
from attnscope.app.jobs.work import WORK
from attnscope.app.settings import Settings
from attnscope.models.uptraining import Training


def test_the_demo_is_pooled_trained_and_compared_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptraining_work, "_TRAINING", Training(steps=2, batch=2))
    monkeypatch.setattr(uptraining_work, "_TOKENS", 32)
    context = Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())
    asked = {"mechanism": "uptraining", "values": {}, "causal": False}
    record = WORK["mechanism"](asked, context)
    losses = record["losses"]
    assert losses["checkpoint"] < losses["pooled"]
    assert losses["trained"] < losses["pooled"]
    assert record["kv_heads"] == [2, 1]
    assert record["cache_bytes"][0] == 2 * record["cache_bytes"][1]
    assert MechanismFolder(tmp_path).records("uptraining") == [record]
