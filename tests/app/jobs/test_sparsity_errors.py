"""What approximations err on a capture, as the page is told it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from attnscope.app.jobs import answers, sparsity_errors
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.jobs.work import WORK
from attnscope.app.settings import Settings
from attnscope.kernels.errors import JobCancelled
from attnscope.kernels.patterns.causal import Causal
from attnscope.profiling.approximation_sweep import SIZES, approximation
from attnscope.profiling.output_errors import Way, way_errors
from tests.app.jobs.captures import DIM, KV_HEADS, made


@pytest.fixture(scope="module")
def capture():
    bare = made()
    torch.manual_seed(0)
    length = bare.layers[0].q_BHQD.shape[2]
    layers = tuple(
        replace(
            layer, v_BGKD=torch.randn(2, KV_HEADS, length, DIM), patterns=(Causal(),), sinks_H=None
        )
        for layer in bare.layers
    )
    return replace(bare, layers=layers)


@pytest.fixture
def context(tmp_path, capture):
    context = Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())
    answers.shelf(context).add("c" * 32, capture)
    return context


def judged(context, backend):
    asked = {"capture": "c" * 32, "sequence": 0, "backend": backend}
    return json.loads(json.dumps(WORK["sparsity_errors"](asked, context)))


def test_errors_are_told_by_size_by_length_and_by_backend(context, capture):
    found = judged(context, "performer")
    assert [each["at"] for each in found["over_sizes"]] == list(SIZES)
    assert [each["at"] for each in found["over_lengths"]] == [20, 40]
    linear, performer, linformer = found["approximations"]
    assert (linear["size"], performer["size"], linformer["size"]) == (None, 256, 256)
    assert "see past" in linformer["refusal"]
    (meant,) = way_errors(capture, [Way(backend=approximation("linear"))])
    error = meant.error_LH
    assert linear["error"] == pytest.approx([error.mean(), error.min(), error.max()])
    point = found["over_sizes"][0]
    assert np.shape(point["mean"]) == np.shape(point["least"]) == error.shape
    assert point["heads"][1] <= point["heads"][0] <= point["heads"][2]


def test_what_refuses_every_layer_has_no_curves(context):
    found = judged(context, "linformer")
    assert (found["over_sizes"], found["over_lengths"]) == ([], [])
    assert "see past" in found["refusal"]


def test_what_was_found_is_kept(context, monkeypatch):
    first = judged(context, "linear")
    monkeypatch.setattr(sparsity_errors, "sweep", lambda *_, **__: pytest.fail("judged anew"))
    assert judged(context, "linear") == first


def test_it_ends_when_it_is_cancelled(context):
    context.stop.set()
    with pytest.raises(JobCancelled):
        judged(context, "performer")
