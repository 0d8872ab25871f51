"""Diagnostics whose sums Triton takes, against PyTorch's and three loops, in the interpreter."""

from dataclasses import replace

import pytest
import torch

from attnscope.kernels.diagnostics import diagnose
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.survey import Survey
from attnscope.kernels.triton.configurations import FlashConfig
from attnscope.kernels.triton.maps_rows import Tokens, row_sums
from tests.kernels.triton.test_maps_cells import LISTED, LONGER
from tests.layers import LayerTruth, last_layer
from tests.shapes import Case, every_case

SMALL = FlashConfig(block_queries=16, block_keys=16, num_warps=4, num_stages=1)
WINDOWS = (1, 3, 20)


def tokens_of(truth: LayerTruth) -> tuple[torch.Tensor, Tokens]:
    """Six different ids, and what the kernel is told of them; a hidden one is like no other."""
    queries, keys = truth.seen_QK.shape
    ids_K = torch.randint(0, 6, (keys,), generator=torch.Generator().manual_seed(keys))
    shown_K = truth.layer.visible_keys_K
    if shown_K is not None:
        ids_K = torch.where(shown_K, ids_K, -10 - torch.arange(keys))
    at_Q = torch.arange(queries) + truth.layer.query_offset
    of_Q = torch.where(at_Q < keys, ids_K[at_Q.clamp(max=keys - 1)], -1)
    before_K = torch.cat([torch.tensor([-2]), ids_K[:-1]])
    return ids_K, Tokens(of_Q=of_Q, of_K=ids_K, before_K=before_K)


def exact_sums(truth: LayerTruth, chosen_K: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every sum from the dense weights, float64 `[H, Q]`."""
    weights_HQK = truth.weights_HQK
    _, tokens = tokens_of(truth)
    queries, keys = truth.seen_QK.shape
    at_Q1 = torch.arange(queries)[:, None] + truth.layer.query_offset
    key_K = torch.arange(keys)
    away_QK = at_Q1 - key_K
    log_HQK = torch.where(weights_HQK > 0, weights_HQK, 1.0).log()
    worth = {
        "mass": torch.ones(queries, keys),
        "mean_distance": away_QK.abs(),
        "sink_mass": chosen_K.expand(queries, keys),
        "previous_token": away_QK == 1,
        **{f"window_mass_{window}": away_QK.abs() < window for window in WINDOWS},
        "duplicate_token": (tokens.of_K == tokens.of_Q[:, None]) & (away_QK > 0),
        "induction": (tokens.before_K == tokens.of_Q[:, None]) & (away_QK >= 0),
    }
    sums = {name: (weights_HQK * each.double()).sum(-1) for name, each in worth.items()}
    return {**sums, "log": (weights_HQK * log_HQK).sum(-1)}


def assert_right(truth: LayerTruth, config: FlashConfig | None = SMALL) -> None:
    keys = truth.seen_QK.shape[1]
    chosen_K = torch.arange(keys) % 7 == 2
    _, tokens = tokens_of(truth)
    found = row_sums(truth.layer, truth.lse_HQ, chosen_K, WINDOWS, tokens, config=config)
    exact = exact_sums(truth, chosen_K)
    assert set(found) == set(exact)
    # A distance is as many times larger than a weight as there are keys.
    scale = {"mean_distance": float(max(truth.seen_QK.shape)), "log": 10.0}
    for name, values_HQ in found.items():
        tolerance = 5e-6 * scale.get(name, 1.0)
        torch.testing.assert_close(values_HQ.double(), exact[name], rtol=5e-6, atol=tolerance)


@pytest.mark.parametrize("case", [*LONGER, *LISTED], ids=lambda case: case.id)
def test_sums_are_those_of_the_dense_weights(case: Case) -> None:
    assert_right(last_layer(case))


@pytest.mark.parametrize(
    ("head_dim", "dtype"), [(80, "float16"), (16, "bfloat16"), (96, "float32")]
)
def test_as_it_ships(head_dim: int, dtype) -> None:
    case = Case(id="ships", query_heads=2, kv_heads=1, queries=70, keys=70, head_dim=head_dim)
    assert_right(last_layer(case, dtype), None)


@every_case()
def test_diagnostics_are_those_of_pytorch(case: Case) -> None:
    truth = last_layer(case)
    ids_K, _ = tokens_of(truth)
    layer = truth.layer
    arguments = {
        "pattern": layer.pattern,
        "query_offset": layer.query_offset,
        "scale": layer.scale,
        "softcap": layer.softcap,
        "sinks_H": truth.sinks_H,
        "visible_keys_K": layer.visible_keys_K,
        "token_ids_K": ids_K,
        "windows": WINDOWS,
        "sinks": 2,
    }
    tensors = (layer.q_HQD, layer.k_GKD, truth.lse_HQ)
    ours = diagnose(*tensors, **arguments, by="triton").by_key()
    theirs = diagnose(*tensors, **arguments, by="torch").by_key()
    assert set(ours) == set(theirs)
    for name, values_H in ours.items():
        torch.testing.assert_close(
            values_H,
            theirs[name],
            rtol=2e-5,
            atol=2e-5,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def test_the_sums_are_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise AssertionError("PyTorch was asked for sums that Triton took")

    monkeypatch.setattr(Survey, "worth", fails)
    truth = last_layer(Case(id="once", query_heads=2, kv_heads=1))
    layer = truth.layer
    rule = {"pattern": layer.pattern, "query_offset": 0, "scale": layer.scale}
    diagnose(layer.q_HQD, layer.k_GKD, truth.lse_HQ, **rule, by="triton")
    with pytest.raises(AssertionError, match="Triton took"):
        diagnose(layer.q_HQD, layer.k_GKD, truth.lse_HQ, **rule, by="torch")


def test_padded_keys_may_hold_anything_and_who_sees_nothing_gives_nothing() -> None:
    truth = last_layer(Case(id="poison", batch=2, padding="left"))
    hidden_K = ~truth.seen_QK.any(0)
    assert hidden_K.any()
    k_GKD = truth.layer.k_GKD.masked_fill(hidden_K[:, None], torch.nan)
    assert_right(replace(truth, layer=replace(truth.layer, k_GKD=k_GKD)))


def test_windows_wider_than_the_keys_hold_everything() -> None:
    rule = pattern("local", window=9)
    truth = last_layer(Case(id="wide", query_heads=2, kv_heads=1, pattern=rule))
    nothing_K = torch.zeros(33, dtype=torch.bool)
    found = row_sums(truth.layer, truth.lse_HQ, nothing_K, (99,), config=SMALL)
    torch.testing.assert_close(found["window_mass_99"], found["mass"])
    assert not found["sink_mass"].any()
    assert "induction" not in found
