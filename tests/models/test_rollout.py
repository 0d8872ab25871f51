"""Rollout, against the layers multiplied out whole in float64, made of transformers' own weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from attnscope.kernels import mixed
from attnscope.kernels.errors import CaptureMissing, InvalidCall, JobCancelled
from attnscope.models import rollout as engine
from attnscope.models.capture import capture
from attnscope.models.captured import Capture
from attnscope.models.loading import LoadedModel
from attnscope.models.rollout import Mixture, rollout, rollout_map
from tests.kernels.test_tiled import LargestTensor

Family = Callable[[str], LoadedModel]
PROMPTS = ["abcabcabcab", "hello hello"]
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


def own_weights(model: LoadedModel, captured: Capture, sequence: int) -> list[np.ndarray]:
    """What transformers gives of each layer, by head: float64 `[H, N, N]`."""
    ids = torch.tensor([captured.token_ids[sequence]])
    with torch.no_grad():
        outputs = model.model(input_ids=ids, output_attentions=True)
    return [layer_BHQK[0].double().numpy() for layer_BHQK in outputs.attentions]


def multiplied(layers_LNN: list[np.ndarray], attention: float = 0.5) -> np.ndarray:
    """R_m ⋯ R_l."""
    product_NN = np.eye(len(layers_LNN[0]))
    for layer_NN in layers_LNN:
        mixed_NN = attention * layer_NN + (1 - attention) * np.eye(len(layer_NN))
        product_NN = mixed_NN @ product_NN
    return product_NN


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma2", "gpt_oss", "bert", "modernbert"])
@pytest.mark.parametrize("attention", [0.5, 0.9])
def test_rows_columns_and_the_map_are_those_of_the_product(
    tiny_family: Family, family: str, attention: float
) -> None:
    model = tiny_family(family)
    captured = capture(model, PROMPTS)
    how = Mixture(attention=attention)
    weights = own_weights(model, captured, 0)
    exact_NN = multiplied([each.mean(0) for each in weights], attention)
    whole = rollout_map(captured, 99, 99, how=how)
    np.testing.assert_allclose(whole.values_MC, exact_NN, **CLOSE)
    missing_N = 1 - exact_NN.sum(1)
    np.testing.assert_allclose(whole.elsewhere_M, missing_N, atol=1e-5)
    assert (missing_N.max() > 0.01) == (family == "gpt_oss")
    for token in (0, 4, -1):
        found = rollout(captured, token, how=how)
        np.testing.assert_allclose(found.values_N, exact_NN[token], **CLOSE)
        assert found.elsewhere_L is not None
        np.testing.assert_allclose(found.elsewhere_L[-1], missing_N[token], atol=1e-5)
        went = rollout(captured, token, direction="to", how=how)
        np.testing.assert_allclose(went.values_N, exact_NN[:, token], **CLOSE)
        assert found.token == went.token == token % len(exact_NN)
        assert went.elsewhere_L is None


def test_the_trail_is_the_product_so_far_downwards_and_upwards(tiny_family: Family) -> None:
    model = tiny_family("llama")
    captured = capture(model, PROMPTS[0])
    low_NN, high_NN = (each.mean(0) for each in own_weights(model, captured, 0))
    down = rollout(captured, 7)
    assert down.layers == (1, 0)
    expected = [np.eye(11)[7], multiplied([high_NN])[7], multiplied([low_NN, high_NN])[7]]
    np.testing.assert_allclose(down.values_LN, expected, **CLOSE)
    up = rollout(captured, 7, direction="to")
    assert up.layers == (0, 1)
    expected = [np.eye(11)[7], multiplied([low_NN])[:, 7], multiplied([low_NN, high_NN])[:, 7]]
    np.testing.assert_allclose(up.values_LN, expected, **CLOSE)


def test_some_layers_and_some_heads(tiny_family: Family) -> None:
    model = tiny_family("llama")
    captured = capture(model, PROMPTS[0])
    low_HNN, high_HNN = own_weights(model, captured, 0)
    how = Mixture(first=1, last=1, heads={1: (2,)}, attention=1)
    np.testing.assert_allclose(rollout(captured, -1, how=how).values_N, high_HNN[2, -1], **CLOSE)
    how = Mixture(heads={0: (3, 0)})
    exact_NN = multiplied([low_HNN[[3, 0]].mean(0), high_HNN.mean(0)])
    np.testing.assert_allclose(rollout_map(captured, 11, 11, how=how).values_MC, exact_NN, **CLOSE)


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "deepseek_v3"])
def test_heads_by_value_are_weighed_by_the_norms_of_their_values(
    tiny_family: Family, family: str
) -> None:
    model = tiny_family(family)
    captured = capture(model, PROMPTS[0], values=True)
    layers = []
    for layer, weights_HNN in enumerate(own_weights(model, captured, 0)):
        v_GND = captured.view(layer).v_GKD
        assert v_GND is not None
        norm_HN = np.repeat(v_GND.double().norm(dim=-1).numpy(), 4 // len(v_GND), 0)
        worth_NN = (weights_HNN * norm_HN[:, None]).mean(0)
        layers.append(worth_NN / worth_NN.sum(1, keepdims=True))
    found = rollout_map(captured, 11, 11, how=Mixture(by_value=True))
    np.testing.assert_allclose(found.values_MC, multiplied(layers), rtol=1e-4, atol=1e-5)
    assert found.elsewhere_M.max() < 1e-5


def test_without_attention_a_token_stays_itself(tiny_family: Family) -> None:
    captured = capture(tiny_family("gpt_oss"), PROMPTS[0])
    found = rollout_map(captured, 11, 11, how=Mixture(attention=0))
    np.testing.assert_array_equal(found.values_MC, np.eye(11))
    np.testing.assert_array_equal(found.elsewhere_M, 0)


def test_a_causal_model_has_no_path_from_later_tokens(tiny_family: Family) -> None:
    found = rollout_map(capture(tiny_family("llama"), PROMPTS[0]), 11, 11).values_MC
    assert not np.triu(found, 1).any()
    assert (np.tril(found) + np.triu(np.ones((11, 11)), 1) > 0).all()


def test_a_window_reaches_as_far_as_its_layers_together(tiny_family: Family) -> None:
    found = rollout_map(capture(tiny_family("mistral"), "ab" * 12), 24, 24).values_MC
    reach = 2 * (5 - 1)
    distance_NN = np.subtract.outer(np.arange(24), np.arange(24))
    np.testing.assert_array_equal(found > 0, (distance_NN >= 0) & (distance_NN <= reach))


@pytest.mark.parametrize("backend", ["sdpa_math", "sdpa_flash", "tiled"])
def test_every_backend_has_the_same_rollout(tiny_family: Family, backend: str) -> None:
    model = tiny_family("mistral")
    expected = rollout_map(capture(model, PROMPTS[0], backend="eager"), 11, 11)
    found = rollout_map(capture(model, PROMPTS[0], backend=backend), 11, 11)
    np.testing.assert_allclose(found.values_MC, expected.values_MC, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 99])
def test_a_pooled_map_is_the_mean_of_rows_and_the_sum_of_columns(
    tiny_family: Family, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = capture(tiny_family("gpt_oss"), PROMPTS[0])
    monkeypatch.setattr(engine, "PUSHED_ELEMENTS", 11 * at_once)
    whole = rollout_map(captured, 11, 11)
    found = rollout_map(captured, 4, 3)
    for row, (start, end) in enumerate(zip(found.row_edges, found.row_edges[1:], strict=False)):
        part = whole.values_MC[start:end].mean(0)
        expected = np.add.reduceat(part, found.column_edges[:-1])
        np.testing.assert_allclose(found.values_MC[row], expected, **CLOSE)
    np.testing.assert_allclose(found.values_MC.sum(1) + found.elsewhere_M, 1, atol=1e-6)


def test_padding_is_no_part_of_it(tiny_family: Family) -> None:
    model = tiny_family("llama")
    alone = rollout_map(capture(model, "hello"), 5, 5)
    beside = rollout_map(capture(model, [PROMPTS[0], "hello"]), 5, 5, sequence=1)
    np.testing.assert_allclose(beside.values_MC, alone.values_MC, rtol=1e-4, atol=1e-5)


def test_no_array_holds_all_pairs(tiny_family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("BLOCK_KEYS", 8), ("LEAST_ROWS", 8), ("BLOCK_PAIRS", 1)):
        monkeypatch.setattr(mixed, name, size)
    captured = capture(tiny_family("gpt2"), "ab" * 32)
    q_HQD = captured.view(0).q_HQD
    with LargestTensor() as largest:
        rollout(captured, -1)
        rollout(captured, 0, direction="to")
    assert largest.elements <= q_HQD.numel() < 64 * 64


def test_progress_grows_and_stops(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), PROMPTS[0])
    told: list[tuple[float, str]] = []
    rollout_map(captured, 4, 4, progress=lambda *step: told.append(step))
    assert told == sorted(told, key=lambda step: step[0])
    assert told[-1] == (1.0, "through layer 0")

    def stop(share: float, step: str) -> None:
        raise JobCancelled(f"{share} {step}")

    with pytest.raises(JobCancelled):
        rollout(captured, 3, progress=stop)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"attention": 1.5}, "from 0 to 1, got 1.5"),
        ({"first": 1, "last": 0}, "the first must be below"),
        ({"heads": {0: (4,)}}, "no head 4"),
        ({"heads": {0: ()}}, "No head was named"),
    ],
)
def test_what_cannot_be_is_refused(tiny_family: Family, how: dict, said: str) -> None:
    captured = capture(tiny_family("llama"), "abc")
    with pytest.raises(InvalidCall, match=said):
        rollout(captured, 0, how=Mixture(**how))


def test_no_such_token_direction_or_layer(tiny_family: Family) -> None:
    captured = capture(tiny_family("llama"), "abc")
    with pytest.raises(InvalidCall, match="no token 3: the prompt has 0 to 2"):
        rollout(captured, 3)
    with pytest.raises(InvalidCall, match="'from' or 'to', got 'up'"):
        rollout(captured, 0, direction="up")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CaptureMissing, match="Layer 2 was not captured"):
        rollout(captured, 0, how=Mixture(last=2))
