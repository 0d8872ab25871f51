"""The error of an output against a loop over the heads of an eager pass of transformers."""

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.models.loading import LoadedModel, load
from attnscope.models.swapping import LayerCall, swapped
from attnscope.profiling.output_errors import Way, output_errors

IDS = list(range(5, 45))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load("demo", device="cpu")


def test_exact_backends_err_by_rounding_and_a_wide_window_by_nothing(model: LoadedModel) -> None:
    ways = {
        "tiled": Way(backend="tiled"),
        "wide": Way(backend="tiled", pattern=pattern("sliding_window", window=100)),
        "narrow": Way(backend="tiled", pattern=pattern("sliding_window", window=4)),
        "linear": Way(backend="linear"),
    }
    found = output_errors(model, IDS, ways)
    assert found["tiled"].relative < 1e-5
    assert found["wide"].relative < 1e-5
    assert found["narrow"].relative > 0.05
    assert found["linear"].relative > 0.05
    assert all(len(each.by_layer) == 4 and each.tokens == 40 for each in found.values())
    assert not any(each.bidirectional for each in found.values())


def test_a_window_is_judged_as_softmax_over_its_keys_alone(model: LoadedModel) -> None:
    seen: list[tuple[float, float]] = []

    def judge(call: LayerCall) -> None:
        heads = call.q_BHQD.shape[1] // call.k_BGKD.shape[1]
        k, v = (each.double().repeat_interleave(heads, 1) for each in (call.k_BGKD, call.v_BGKD))
        scores = call.q_BHQD.double() @ k.mT * call.scale
        apart = torch.arange(40)[:, None] - torch.arange(40)[None]
        dense, narrow = (
            scores.masked_fill(~shown, -torch.inf).softmax(-1) @ v
            for shown in (apart >= 0, (apart >= 0) & (apart < 4))
        )
        seen.append(((narrow - dense).square().sum().item(), dense.square().sum().item()))

    with torch.no_grad(), swapped(model.model, "eager", recorder=judge):
        model.model(input_ids=torch.tensor([IDS]))
    way = Way(backend="tiled", pattern=pattern("sliding_window", window=4))
    found = output_errors(model, IDS, {"": way})[""]
    errors, sizes = (sum(part) for part in zip(*seen, strict=True))
    assert found.relative == pytest.approx((errors / sizes) ** 0.5, rel=1e-5)
    expected = [(error / size) ** 0.5 for error, size in seen]
    assert found.by_layer == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_causal_is_judged_without_the_rule_and_says_so(model: LoadedModel) -> None:
    found = output_errors(model, IDS, {"": Way(backend="linformer")})[""]
    assert found.bidirectional
    assert 0 < found.relative < 100


def test_a_single_token_is_no_prompt(model: LoadedModel) -> None:
    with pytest.raises(InvalidCall, match="at least 2 tokens"):
        output_errors(model, [5], {})
