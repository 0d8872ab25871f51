"""Features against their definitions; that random ones are unbiased, and how fast they get better."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from attnscope.kernels.approximate.feature_maps import (
    log_elu_plus_one,
    log_positive_random,
    orthogonal_projection,
    stable_features,
)
from tests.approximations import elu_plus_one, favor
from tests.shapes import Case

WIDTH, SCALE = 16, 0.25


def pair() -> tuple[Tensor, Tensor]:
    """A query and a key alike, and so short that some hundred estimates show mean and spread."""
    generator = torch.Generator().manual_seed(1)
    q_D, noise_D = torch.randn(2, WIDTH, generator=generator, dtype=torch.float64)
    q_D, k_D = q_D / 2, q_D / 3 + noise_D / 5
    return q_D, k_D


def estimates(features: int, seeds: range) -> Tensor:
    """φ(q)·φ(k) of the pair under each seed."""
    q_D, k_D = pair()
    found = []
    for seed in seeds:
        log_features = partial(
            log_positive_random,
            projection_FD=orthogonal_projection(features, WIDTH, seed),
            scale=SCALE,
        )
        found.append((log_features(q_D) + log_features(k_D)).exp().sum())
    return torch.stack(found)


def truth() -> float:
    q_D, k_D = pair()
    return math.exp(SCALE * float(q_D @ k_D))


def test_elu_plus_one_is_its_definition() -> None:
    x = torch.linspace(-30, 30, 241, dtype=torch.float64)
    torch.testing.assert_close(log_elu_plus_one(x).exp(), elu_plus_one(x))
    torch.testing.assert_close(elu_plus_one(x), torch.nn.functional.elu(x) + 1)


def test_elu_plus_one_keeps_what_a_float_cannot_hold() -> None:
    extremes = torch.tensor([-1000.0, -1e-8, 0.0, 1e-8, 1e30], requires_grad=True)
    logarithms = log_elu_plus_one(extremes)
    assert logarithms.isfinite().all()
    assert logarithms[0] == -1000
    (slopes,) = torch.autograd.grad(logarithms.sum(), extremes)
    torch.testing.assert_close(slopes[:2], torch.ones(2))
    assert slopes.isfinite().all()


def test_random_features_are_their_definition() -> None:
    q_BHQD = Case(id="features").inputs("float64").q_BHQD
    projection_FD = orthogonal_projection(20, WIDTH, 3)
    ours = log_positive_random(q_BHQD, projection_FD, scale=SCALE).exp()
    torch.testing.assert_close(ours, favor(q_BHQD, projection_FD, SCALE))


@pytest.mark.parametrize("features", [1, 16, 40])
def test_rows_are_orthogonal_within_a_block(features: int) -> None:
    projection_FD = orthogonal_projection(features, WIDTH, 0)
    assert projection_FD.shape == (features, WIDTH)
    for block in projection_FD.split(WIDTH):
        gram = block @ block.T
        torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-12, rtol=0)


def test_a_seed_makes_the_same_rows_and_another_makes_others() -> None:
    first = orthogonal_projection(20, WIDTH, 5)
    orthogonal_projection.cache_clear()
    assert torch.equal(orthogonal_projection(20, WIDTH, 5), first)
    assert not torch.equal(orthogonal_projection(20, WIDTH, 6), first)


def test_each_row_alone_is_normal() -> None:
    rows = torch.cat([orthogonal_projection(WIDTH, WIDTH, seed) for seed in range(300)])
    # 4 standard errors of the mean, of the variance, and of the fourth moment, which is 3.
    for power, moment, deviation in ((1, 0, 1), (2, 1, 2**0.5), (4, 3, 96**0.5)):
        error = (rows**power).mean() - moment
        assert abs(float(error)) < 4 * deviation / math.sqrt(rows.numel())
    # A direction uniform on the sphere prefers no axis and no sign.
    assert (rows.mean(0).abs() < 4 / math.sqrt(len(rows))).all()


def test_the_estimate_of_the_softmax_kernel_is_unbiased() -> None:
    found = estimates(64, range(1000))
    standard_error = found.std() / math.sqrt(len(found))
    z = (found.mean() - truth()) / standard_error
    assert abs(float(z)) < 4
    # So small that a bias of one in 25 would be seen; and the truth is not that of no kernel, 1.
    assert standard_error < truth() / 100
    assert truth() > 1.3


def test_the_error_falls_with_the_root_of_the_number_of_features() -> None:
    counts = (16, 64, 256)
    errors = [(estimates(count, range(400)) - truth()).square().mean().sqrt() for count in counts]
    for few, many in pairwise(errors):
        assert 1.7 < float(few / many) < 2.3


def test_orthogonal_rows_err_less_than_independent_ones() -> None:
    q_D, k_D = pair()
    generator = torch.Generator().manual_seed(0)
    independent = []
    for _ in range(600):
        rows_FD = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
        independent.append((favor(q_D, rows_FD, SCALE) * favor(k_D, rows_FD, SCALE)).sum())
    assert estimates(WIDTH, range(600)).var() < 0.9 * torch.stack(independent).var()


@pytest.mark.parametrize("padding", [None, "left"])
def test_stable_features_change_no_quotient_and_fit_16_bits(padding) -> None:
    inputs = Case(id="stable", batch=2, padding=padding).inputs("float64")
    projection_FD = orthogonal_projection(24, WIDTH, 0)
    # Keys so long that their features, and those of the queries, are e^-500 and less.
    k_BGKD = inputs.k_BGKD * 20
    hidden_BK = None if inputs.visible_keys_BK is None else ~inputs.visible_keys_BK
    if hidden_BK is not None:
        k_BGKD = k_BGKD.masked_fill(hidden_BK[:, None, :, None], torch.nan)
    log_features = partial(log_positive_random, projection_FD=projection_FD, scale=SCALE)
    q_BHQF, k_BGKF = stable_features(inputs.q_BHQD, k_BGKD, log_features, inputs.visible_keys_BK)
    assert (q_BHQF.amax(-1) == 1).all()
    assert (k_BGKF.amax(2) == 1).all()
    if hidden_BK is not None:
        assert (k_BGKF[hidden_BK[:, None].expand(-1, 2, -1)] == 0).all()

    # log Σ_f φ_f(q) φ_f(k), pair by pair in logarithms, which no range limits.
    log_k_BHKF = log_features(k_BGKD).repeat_interleave(2, 1)
    log_pairs = log_features(inputs.q_BHQD)[:, :, :, None] + log_k_BHKF[:, :, None]
    log_pairs = log_pairs.logsumexp(-1)
    if hidden_BK is not None:
        log_pairs = log_pairs.masked_fill(hidden_BK[:, None, None], -torch.inf)
    weights = q_BHQF @ k_BGKF.repeat_interleave(2, 1).mT
    torch.testing.assert_close(weights / weights.sum(-1, keepdim=True), log_pairs.softmax(-1))
