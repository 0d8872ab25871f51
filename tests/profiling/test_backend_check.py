"""Every backend on the demo model: errors, logits, latency and memory by oracles of their own."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import transformers as hf

from attnscope.kernels import registry
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import InvalidCall, JobCancelled, UnknownBackend
from attnscope.models.loading import LoadedModel
from attnscope.models.prompting import Batch, batch_of
from attnscope.models.swapping import swapped
from attnscope.profiling import backend_check
from attnscope.profiling.backend_check import BackendResult, check, speed_up
from attnscope.profiling.exactness import FLOAT32_ERROR
from attnscope.profiling.json_data import from_data, to_data
from attnscope.profiling.latency import Effort
from attnscope.profiling.memory import peak_memory
from tests.models.conftest import DECODERS, tiny, tiny_tokenizer
from tests.profiling.faults import FAULTS
from tests.profiling.planted_backends import Planted

TEXT = "Mara found the silver key. Later Mara found the silver"
QUICK = Effort(runs=3, seconds=0, warmup_runs=1, warmup_seconds=0)
LAYERS, HEADS = 4, 8
RIGHT = ["eager", "sdpa_math", "sdpa_flash", "tiled"]


@pytest.fixture(scope="module")
def batch(demo: LoadedModel) -> Batch:
    return batch_of(demo, TEXT, None, None)


@pytest.fixture(scope="module")
def found(demo: LoadedModel, batch: Batch) -> dict[str, BackendResult]:
    """Every backend but the one that compiles, checked once."""
    names = [each.name for each in registry.BACKENDS if each.name != "flex"]
    results = check(demo, batch, names=names, effort=QUICK)
    assert [each.name for each in results] == names
    return {each.name: each for each in results}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_backend_is_measured_whole(found: dict[str, BackendResult], name: str) -> None:
    result = found[name]
    assert result.failure is result.cause is None
    assert [(head.layer, head.head) for head in result.heads] == [
        (layer, head) for layer in range(LAYERS) for head in range(HEADS)
    ]
    worst, timing, peak = result.worst, result.timing, result.peak
    assert worst is not None
    assert worst.relative is not None
    assert 0 < worst.relative < FLOAT32_ERROR
    assert worst.relative == max(head.relative or 0 for head in result.heads)
    assert timing is not None
    assert timing.count == 3
    assert peak is not None
    assert result.attention is not None
    assert result.attention.fallback == ""
    assert from_data(BackendResult, to_data(result)) == result


def test_what_cannot_run_is_refused_in_its_own_words(found: dict[str, BackendResult]) -> None:
    refused = found["sdpa_cudnn"]
    failure = refused.failure
    assert failure is not None
    assert failure.outcome == "refused"
    assert "cuda only" in failure.reason
    assert failure.remedy
    assert refused == BackendResult(
        name="sdpa_cudnn", title=refused.title, exact=True, failure=failure
    )


def test_what_approximates_is_measured_and_never_called_wrong(
    found: dict[str, BackendResult],
) -> None:
    linear = found["linear"]
    assert (linear.exact, linear.failure, linear.wrong_heads) == (False, None, ())
    assert linear.worst is not None
    assert (linear.worst.relative or 0) > 0.01
    assert linear.timing is not None
    assert linear.attention is not None
    assert linear.attention.paths == "PyTorch operators"


@pytest.mark.parametrize("name", ["tiled", "linear"])
def test_logits_are_held_against_a_model_in_float64(
    demo: LoadedModel, batch: Batch, found: dict[str, BackendResult], name: str
) -> None:
    ids = torch.tensor(batch.rows)
    exact = hf.AutoModelForCausalLM.from_pretrained(
        demo.model.config._name_or_path, dtype=torch.float64, attn_implementation="eager"
    )
    with torch.no_grad(), swapped(demo.model, name):
        ours = demo.model(input_ids=ids, use_cache=False).logits.double()
    with torch.no_grad():
        theirs = exact(input_ids=ids, use_cache=False).logits
    logits = found[name].logits
    assert logits is not None
    assert logits.positions == batch.length
    largest = (ours - theirs).abs().max().item()
    # The model's other layers round to float32 as well.
    assert logits.largest.value == pytest.approx(largest, rel=1e-3, abs=1e-4)
    same = (ours.argmax(-1) == theirs.argmax(-1)).double().mean().item()
    assert logits.agreement.value == pytest.approx(same)


def test_speed_ups_are_ratios_of_medians_of_one_check(found: dict[str, BackendResult]) -> None:
    eager, tiled = found["eager"].timing, found["tiled"].timing
    assert eager is not None
    assert tiled is not None
    ratio = speed_up(found["tiled"], found["eager"])
    assert ratio is not None
    assert ratio.value == eager.median_s / tiled.median_s
    # Three runs are no ground for a comparison.
    assert "only 3 runs" in ratio.unsettled
    assert speed_up(found["sdpa_cudnn"], found["eager"]) is None
    assert speed_up(found["tiled"], found["sdpa_cudnn"]) is None


def test_memory_is_that_of_one_pass_over_the_prompt(
    demo: LoadedModel, batch: Batch, found: dict[str, BackendResult]
) -> None:
    ids, seen = batch.tensors(demo.device)

    def run() -> object:
        return demo.model(input_ids=ids, attention_mask=seen, use_cache=False)

    with torch.no_grad(), swapped(demo.model, "eager"):
        run()
        alone = peak_memory(run, demo.device, held_bytes=demo.nbytes)
    peak = found["eager"].peak
    assert peak is not None
    assert peak.allocated.value == pytest.approx(alone.allocated.value, rel=0.01)


def test_timed_runs_take_turns(demo: LoadedModel, batch: Batch) -> None:
    told: list[tuple[float, str]] = []

    def report(share: float, words: str) -> None:
        told.append((share, words))

    results: list[BackendResult] = []
    check(
        demo,
        batch,
        names=["eager", "tiled"],
        effort=QUICK,
        report=report,
        on_result=results.append,
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    runs = [words.rpartition(" ")[2] for _, words in told if words.startswith("latency in turns, ")]
    assert [set(runs[at : at + 2]) for at in (0, 2, 4)] == [{"eager", "tiled"}] * 3
    # Each result is told as it is judged, and again with its latency.
    assert [(each.name, each.timing is not None) for each in results] == [
        ("eager", False),
        ("tiled", False),
        ("eager", True),
        ("tiled", True),
    ]


def broken(error: BaseException) -> Callable[..., object]:
    def attend(*given: object, **others: object) -> object:
        raise error

    return attend


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory", "Out of memory"),
        (
            RuntimeError("no kernel image\nfor the device"),
            "failed",
            "RuntimeError: no kernel image",
        ),
        (ZeroDivisionError("a compiler's own"), "failed", "ZeroDivisionError"),
    ],
)
def test_a_backend_that_breaks_leaves_the_others(
    demo: LoadedModel,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: str,
    words: str,
) -> None:
    planted = Planted(fault=FAULTS[0])
    monkeypatch.setattr(planted, "_attend", broken(error))
    monkeypatch.setattr(registry, "BACKENDS", (planted, *registry.BACKENDS))
    results = check(demo, batch, names=["planted", "eager"], effort=QUICK)
    failure = results[0].failure
    assert failure is not None
    assert failure.outcome == outcome
    assert words in failure.reason
    assert results[1].timing is not None


def test_a_refusal_is_never_run(
    demo: LoadedModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(call: AttentionCall, device: torch.device):
        return backend_check.registry.backend("sdpa_cudnn").refuses(call, device)

    planted = Planted(fault=FAULTS[0])
    monkeypatch.setattr(planted, "refuses", refuses)
    monkeypatch.setattr(registry, "BACKENDS", (planted, *registry.BACKENDS))
    (result,) = check(demo, batch, names=["planted"], effort=QUICK)
    assert result.failure is not None
    assert result.failure.outcome == "refused"
    assert planted.given == []


def test_a_cancellation_ends_it_and_leaves_the_model_as_it_was(
    demo: LoadedModel, batch: Batch
) -> None:
    def report(share: float, words: str) -> None:
        if words.startswith("tiled: layer 2"):
            raise JobCancelled("Cancelled.")

    before = demo.model.config._attn_implementation
    with pytest.raises(JobCancelled):
        check(demo, batch, names=["tiled"], effort=QUICK, report=report)
    assert demo.model.config._attn_implementation == before


def test_prompts_of_different_lengths_are_one_batch(demo: LoadedModel) -> None:
    batch = batch_of(demo, [TEXT, "Later Mara found"], None, None)
    assert len(set(batch.spans)) == 2
    (result,) = check(demo, batch, names=["tiled"], effort=QUICK)
    assert result.failure is None
    assert result.logits is not None
    assert result.logits.positions == sum(end - start for start, end in batch.spans)


def test_logits_are_compared_where_there_is_memory_for_them(
    demo: LoadedModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = demo.model.config.vocab_size
    monkeypatch.setattr(backend_check, "_LOGIT_BYTES", 3 * 4 * vocabulary)
    (result,) = check(demo, batch, names=["tiled"], effort=QUICK)
    assert result.logits is not None
    assert result.logits.positions == 3


def test_a_model_without_a_head_has_no_logits() -> None:
    base = tiny(DECODERS["llama"](), hf.AutoModel)
    model = LoadedModel.of(base, tiny_tokenizer(), kind="decoder", has_head=False)
    (result,) = check(model, batch_of(model, None, [1, 2, 3], None), names=["tiled"], effort=QUICK)
    assert (result.logits, result.failure) == (None, None)


@pytest.mark.parametrize(
    ("names", "error"), [([], InvalidCall), (["warp"], UnknownBackend)], ids=["none", "unknown"]
)
def test_what_cannot_be_checked_is_refused_before_anything_runs(
    demo: LoadedModel, batch: Batch, names: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check(demo, replace(batch, rows=()), names=names)
