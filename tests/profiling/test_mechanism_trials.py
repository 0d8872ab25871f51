"""What is timed beside dense attention computes what it says, against float64 written out anew."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.registry import backend
from attnscope.profiling.call_bench import random_inputs
from attnscope.profiling.mechanism_trials import (
    DEEPSEEK,
    MAKERS,
    SEQUENCES,
    Decoding,
    Heads,
    Latents,
    biased_trials,
    latent_trials,
    paged_trials,
    rotary_trials,
)

CPU = torch.device("cpu")
HEADS = Heads(heads=4, head_dim=16, dtype="float32")
NARROW = Latents(rank=24, turned=8, own=16, value=12)


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("length", [1, 37])
def test_every_trial_stands_beside_dense_attention_and_runs(what: str, length: int) -> None:
    trials = MAKERS[what](length, HEADS, CPU)
    assert list(trials)[:2] == ["dense", "mechanism"]
    for trial in trials.values():
        first, second = trial.make()(), trial.make()()
        assert repr(first) == repr(second)


@pytest.mark.parametrize("length", [16, 37])
def test_pages_give_what_the_same_cache_in_one_stretch_gives(length: int) -> None:
    trials = paged_trials(length, HEADS, CPU)
    dense, own, stretch = (trial.make()().out_BHQD for trial in trials.values())  # pyright: ignore[reportAttributeAccessIssue]
    assert own.shape == (SEQUENCES, 4, 1, 16)
    torch.testing.assert_close(own, dense)
    torch.testing.assert_close(stretch, dense)


def test_latents_give_one_result_absorbed_expanded_and_by_hand() -> None:
    step = Decoding(21, HEADS, CPU, NARROW)
    latent_KC, turned_KR = (part.double() for part in step.cache_BKC[0].split([24, 8], -1))
    expected = []
    for head in range(4):
        keys_KD = torch.cat([latent_KC @ step.up_keys_HDC[head].double().T, turned_KR], -1)
        scores_K = keys_KD @ step.q_BHQD[0, head, 0].double() / math.sqrt(16 + 8)
        values_KV = latent_KC @ step.up_values_HVC[head].double().T
        expected.append(scores_K.softmax(0) @ values_KV)
    for found in (step.absorbed(), step.expanded(), step.kept(backend("eager"))()):
        torch.testing.assert_close(
            found[0, :, 0].double(), torch.stack(expected), atol=1e-5, rtol=1e-4
        )
    assert step.cache_bytes == 21 * (24 + 8) * 4


def test_the_latents_are_timed_at_the_widths_of_deepseek() -> None:
    trials = latent_trials(3, HEADS, CPU)
    assert "keys of 192 and values of 128" in trials["dense"].over
    assert "latents of 576" in trials["mechanism"].over
    assert (DEEPSEEK.rank, DEEPSEEK.turned) == (512, 64)


def test_alibi_is_the_published_penalty() -> None:
    run = biased_trials(19, HEADS, CPU)["mechanism"].make()
    found = cast(Tensor, run())
    call = AttentionCall(
        batch=1,
        query_heads=HEADS.heads,
        kv_heads=HEADS.heads,
        query_length=19,
        key_length=19,
        head_dim=HEADS.head_dim,
        value_dim=HEADS.head_dim,
        dtype=HEADS.dtype,
        scale=HEADS.head_dim**-0.5,
        pattern=pattern("causal"),
    )
    q, k, v = random_inputs(call, CPU, 0)
    for head in range(HEADS.heads):
        slope = 2.0 ** (-8 * (head + 1) / HEADS.heads)
        for i in range(19):
            scores = [
                float(q[0, head, i].double() @ k[0, head, j].double()) * call.scale
                - slope * (i - j)
                for j in range(i + 1)
            ]
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            expected = weights @ v[0, head, : i + 1].double()
            torch.testing.assert_close(found[0, head, i].double(), expected, atol=1e-5, rtol=1e-4)


def test_what_is_turned_keeps_products_by_distance() -> None:
    (q, k), (q2, k2) = (
        rotary_trials(length, HEADS, CPU)["mechanism"].make()() for length in (8, 8)
    )  # pyright: ignore[reportGeneralTypeIssues]
    assert torch.equal(q, q2)
    assert torch.equal(k, k2)
    plain, _, _ = random_inputs(
        AttentionCall(
            batch=1,
            query_heads=4,
            kv_heads=4,
            query_length=8,
            key_length=8,
            head_dim=16,
            value_dim=16,
            dtype="float32",
            scale=0.25,
        ),
        CPU,
        0,
    )
    pair = torch.view_as_complex(torch.stack(plain.double().chunk(2, -1), -1))
    angle = torch.arange(8)[:, None] * 10_000.0 ** (-torch.arange(0, 16, 2) / 16).double()
    turned = pair * torch.polar(torch.ones_like(angle), angle)
    torch.testing.assert_close(
        q.double(), torch.cat([turned.real, turned.imag], -1), atol=1e-5, rtol=1e-4
    )
