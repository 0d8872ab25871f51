"""Models running on backends that approximate: their layers' outputs, their caches, and no false map."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import orthogonal_projection
from attnscope.kernels.approximate.linformer import length_projection
from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import UnsupportedCall
from attnscope.models.capture import capture
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import LayerCall, swapped
from tests.approximations import elu_plus_one, favor, kernel_attention, projected_attention
from tests.inputs import Inputs

IDS = torch.tensor([[5, 6, 7, 8, 5, 6, 9, 11]])

Family = Callable[[str], LoadedModel]


def asked(call: LayerCall) -> Inputs:
    """What a layer asked of its backend, for the oracles."""
    tensors = (call.q_BHQD, call.k_BGKD, call.v_BGKD)
    return Inputs(
        call=AttentionCall.of(
            *tensors,
            pattern=call.mask.patterns[0],
            query_offset=call.mask.query_offset,
            scale=call.scale,
            has_padding=call.mask.visible_keys_BK is not None,
        ),
        q_BHQD=call.q_BHQD,
        k_BGKD=call.k_BGKD,
        v_BGKD=call.v_BGKD,
        sinks_H=None,
        visible_keys_BK=call.mask.visible_keys_BK,
    )


def naive(call: LayerCall) -> Tensor:
    """The layer's output by the definition of its backend, in float64."""
    inputs = asked(call)
    if call.backend == "linformer":
        return projected_attention(inputs, length_projection(inputs.call.key_length, 256, 0))
    if call.backend == "linear":
        return kernel_attention(inputs, elu_plus_one, causal=True)
    projection_FD = orthogonal_projection(256, inputs.call.head_dim, 0)
    feature_map = partial(favor, projection_FD=projection_FD, scale=call.scale)
    return kernel_attention(inputs, feature_map, causal=True)


def logits(model: LoadedModel, backend: str, **others: Any) -> tuple[Tensor, list[LayerCall]]:
    calls: list[LayerCall] = []
    with torch.no_grad(), swapped(model.model, backend, calls.append):
        return model.model(**{"input_ids": IDS, **others}).logits, calls


@pytest.mark.parametrize(
    ("family", "backend"),
    [
        ("gpt2", "linear"),
        ("gpt2", "performer"),
        ("llama", "linear"),
        ("llama", "performer"),
        ("bert", "linformer"),
    ],
)
def test_every_layer_computes_the_backends_own_definition(
    tiny_family: Family, family: str, backend: str
) -> None:
    model = tiny_family(family)
    ours, calls = logits(model, backend)
    assert [call.backend for call in calls] == [backend] * 2
    for call in calls:
        assert call.lse_BHQ is None
        torch.testing.assert_close(call.out_BHQD.double(), naive(call), atol=1e-4, rtol=1e-3)
    exact, _ = logits(model, "tiled")
    # It is another function, and does not pass for the model's own.
    assert (ours - exact).abs().max() > 1e-2 * exact.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("backend", ["linear", "performer"])
def test_generation_with_a_cache_is_generation_from_scratch(
    tiny_family: Family, family: str, backend: str
) -> None:
    model: Any = tiny_family(family).model
    options = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 10}
    with swapped(model, backend):
        cached = model.generate(IDS, use_cache=True, **options)
        scratch = model.generate(IDS, use_cache=False, **options)
    assert cached.shape == (1, 18)
    assert torch.equal(cached, scratch)


@pytest.mark.parametrize("backend", ["linear", "performer"])
def test_a_static_cache_is_read_from_its_first_key(tiny_family: Family, backend: str) -> None:
    model: Any = tiny_family("llama").model
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 5}
    static = {"cache_implementation": "static", "disable_compile": True}
    with swapped(model, backend):
        expected = model.generate(IDS, **options)
        found = model.generate(IDS, **static, **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("family", "backend", "side"),
    [("llama", "linear", "left"), ("gpt2", "performer", "left"), ("bert", "linformer", "right")],
)
def test_padding_changes_nothing(tiny_family: Family, family: str, backend: str, side: str) -> None:
    model = tiny_family(family)
    alone, _ = logits(model, backend)
    pad = torch.zeros(1, 3, dtype=torch.long)
    parts = (pad, IDS) if side == "left" else (IDS, pad)
    seen = torch.cat(parts, 1) != 0
    places = {} if side == "right" else {"position_ids": (seen.cumsum(1) - 1).clamp(min=0)}
    padded, _ = logits(
        model, backend, input_ids=torch.cat(parts, 1), attention_mask=seen.long(), **places
    )
    torch.testing.assert_close(padded[seen][None], alone, atol=1e-3, rtol=1e-3)


def test_an_encoders_projection_is_refused_by_a_decoder(tiny_family: Family) -> None:
    with pytest.raises(UnsupportedCall, match=r"see past what its pattern shows.*linear or perf"):
        logits(tiny_family("llama"), "linformer")


def test_windows_are_refused(tiny_family: Family) -> None:
    with pytest.raises(UnsupportedCall, match="a pattern's gaps cannot be taken"):
        logits(tiny_family("mistral"), "linear")


@pytest.mark.parametrize(
    ("family", "backend"), [("llama", "linear"), ("llama", "performer"), ("bert", "linformer")]
)
def test_no_map_is_shown_of_what_has_no_softmax(
    tiny_family: Family, family: str, backend: str
) -> None:
    with pytest.raises(UnsupportedCall, match=r"approximates.*Capture with an exact backend"):
        capture(tiny_family(family), "abcabc", backend=backend)


def test_exact_layers_are_captured_beside_approximate_ones(tiny_family: Family) -> None:
    model = tiny_family("llama")
    mixed = {0: "linear", 1: "tiled"}
    with pytest.raises(UnsupportedCall, match="Linear attention"):
        capture(model, "abcabc", backend=mixed)
    captured = capture(model, "abcabc", backend=mixed, layers=[1])
    assert [layer.backend for layer in captured.layers] == ["tiled"]
    # Its queries come out of the approximate layer before it, and are not the exact model's.
    plain = capture(model, "abcabc", backend="tiled", layers=[1])
    assert not torch.allclose(captured.layers[0].q_BHQD, plain.layers[0].q_BHQD, atol=1e-2)
