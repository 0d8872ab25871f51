import json
from pathlib import Path
from typing import Any

import pytest

from attnscope.app.files.calculation import device_of
from attnscope.app.jobs import calculation_check
from attnscope.app.jobs.calculation_check import PARTS, TRAINING_PARTS, check
from attnscope.app.jobs.calculations import devices
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.app.views.calculator import CalculatorView
from attnscope.kernels.errors import JobCancelled, UnsupportedCall

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(settings=Settings(data=tmp_path), device="cpu", resources=Resources())


def asked(context: Context, **fields: Any) -> dict[str, Any]:
    view = CalculatorView(**{"length": 64, "dtype": "float32", "backend": "eager", **fields})
    return view.questions(device_of(view, devices({}, context)))[1]


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("backend", ["eager", "sdpa_flash"])
def test_the_demo_is_traced_and_measured_part_by_part(
    context: Context, backend: str, phase: str
) -> None:
    asks = asked(context, backend=backend, phase=phase, length=128, dtype="bfloat16")
    found = check(asks, context)
    json.dumps(found)
    closed = found["closed"]
    assert closed["total"] == sum(closed[part] for part in PARTS[:-1])
    # Matrix products on a CPU take scratch memory, which the trace does not see and a small run feels.
    for column, allowed in ((found["traced"], 2e-3), (found["measured"], 1e-2)):
        assert column["weights"] == closed["weights"]
        assert column["cache"] == closed["cache"]
        assert column["total"] == pytest.approx(closed["total"], rel=allowed)
        assert column["moment"]


@pytest.mark.parametrize(
    "fields",
    [
        {"backend": "sdpa_flash", "dtype": "bfloat16"},
        {"backend": "transformers_eager", "checkpointing": True, "optimizer": "sgd"},
    ],
)
def test_a_step_of_training_is_traced_and_measured(
    context: Context, fields: dict[str, Any]
) -> None:
    found = check(asked(context, phase="training", length=128, **fields), context)
    json.dumps(found)
    closed = found["closed"]
    assert closed["total"] == sum(closed[part] for part in TRAINING_PARTS[:-1])
    for column, allowed in ((found["traced"], 1e-4), (found["measured"], 1e-2)):
        assert column["weights"] == closed["weights"]
        assert column["kept"] == pytest.approx(closed["kept"], rel=1e-4)
        assert column["total"] == pytest.approx(closed["total"], rel=allowed)
        assert column["moment"]
    assert found["traced"]["gradients"] == closed["gradients"]


def test_a_kernel_that_needs_a_gpu_is_stated_and_all_else_traced(context: Context) -> None:
    found = check(asked(context, backend="triton", dtype="bfloat16"), context)
    assert "cannot be traced" in found["traced"]["note"]
    assert found["traced"]["total"] == pytest.approx(found["closed"]["total"], rel=1e-3)
    assert "GPU" in found["measured"]["reason"]
    assert found["measured"]["remedy"]


@pytest.mark.parametrize(
    ("fields", "column", "words"),
    [
        (
            {"phase": "training", "backend": "sdpa_math", "optimizer": "adamw_8bit"},
            "traced",
            "no adamw_8bit",
        ),
        (
            {"phase": "training", "backend": "sdpa_math", "optimizer": "adamw_8bit"},
            "measured",
            "no adamw_8bit",
        ),
        ({"phase": "training", "backend": "triton"}, "measured", "GPU"),
        ({"page": 16}, "traced", "without pages"),
        ({"page": 16}, "measured", "without pages"),
        ({"pasted": json.dumps(TINY)}, "measured", "downloads no weights"),
        ({"backend": "transformers_eager"}, "measured", "model's own attention"),
        ({"all_logits": True}, "measured", "last position"),
        ({"length": 1, "phase": "decode"}, "measured", "a token in the cache"),
        ({"length": 200_000, "backend": "sdpa_flash"}, "measured", "would take about"),
        ({"length": 300_000}, "measured", "is predicted to take"),
    ],
)
def test_what_cannot_be_checked_says_why_and_what_to_do(
    context: Context, fields: dict[str, Any], column: str, words: str
) -> None:
    found = check(asked(context, **{"dtype": "bfloat16", **fields}), context)[column]
    assert words in found["reason"]
    assert found["remedy"]


def test_a_model_of_very_many_layers_is_not_traced(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calculation_check, "MOST_LAYERS", 1)
    found = check(asked(context, pasted=json.dumps(TINY)), context)["traced"]
    assert found["reason"] == "2 layers are too many to trace: 1 at most."
    assert found["remedy"]


def test_quantised_weights_are_not_traced_as_if_they_were_wide(context: Context) -> None:
    quantised = {**TINY, "quantization_config": {"quant_method": "fp8"}}
    found = check(asked(context, pasted=json.dumps(quantised)), context)
    assert "quantised" in found["traced"]["reason"]


def test_a_backend_that_no_gpu_runs_is_refused_as_a_whole(context: Context) -> None:
    with pytest.raises(UnsupportedCall, match="a key head for each query head"):
        check(asked(context, backend="sdpa_efficient"), context)


def test_a_cancelled_check_ends(context: Context) -> None:
    shares = []

    def report(progress: Any) -> None:
        shares.append(progress.share)
        if progress.step.startswith("Tracing"):
            context.stop.set()

    context.report = report
    with pytest.raises(JobCancelled):
        check(asked(context), context)
    assert shares == sorted(shares)
