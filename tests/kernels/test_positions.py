"""Positions against transformers' own functions, published figures, loops and random draws."""

import cmath
import math

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as turn_interleaved
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as turn_halves
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.positions import (
    Layout,
    Rotary,
    alibi_slopes,
    frequencies,
    rope_bound,
    rope_expected,
    similarity_by_distance,
    sinusoidal,
    wavelengths,
)


def test_sinusoids_are_those_of_the_paper_and_of_transformers() -> None:
    found = sinusoidal(50, 12)
    for position in range(50):
        for plane in range(6):
            angle = position / 10_000 ** (2 * plane / 12)
            assert found[position, 2 * plane] == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[position, 2 * plane + 1] == pytest.approx(math.cos(angle), abs=1e-6)
    theirs = MarianSinusoidalPositionalEmbedding(50, 12)  # sines first, then cosines
    weight = theirs.create_weight()
    torch.testing.assert_close(torch.cat([found[:, ::2], found[:, 1::2]], 1), weight)


@pytest.mark.parametrize("heads", range(1, 41))
def test_slopes_are_those_of_bloom_and_mpt(heads: int) -> None:
    found = alibi_slopes(heads)
    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    torch.testing.assert_close(found, bloom)
    mpt = build_mpt_alibi_tensor(heads, 2)
    torch.testing.assert_close(found, -mpt[:, 0, 0])


def test_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-power for power in range(1, 9)]
    assert alibi_slopes(16).tolist() == pytest.approx([2 ** (-k / 2) for k in range(1, 17)])
    # 12 heads: those of 8, then 2^-0.5, 2^-1.5, 2^-2.5, 2^-3.5 from those of 16.
    expected = [2.0**-power for power in (*range(1, 9), 0.5, 1.5, 2.5, 3.5)]
    assert alibi_slopes(12).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_vectors_turn_as_in_transformers(layout: Layout) -> None:
    q = torch.randn(2, 3, 9, 16, generator=torch.Generator().manual_seed(0))
    rotary = Rotary(frequencies_F=frequencies(16), layout=layout)
    angle = torch.arange(9)[:, None] * frequencies(16).float()
    if layout == "half":
        both = torch.cat([angle, angle], -1)[None]
        theirs, _ = turn_halves(q, q, both.cos(), both.sin())
    else:
        swapped = q.transpose(1, 2)
        theirs = turn_interleaved(swapped, angle.sin()[None], angle.cos()[None]).transpose(1, 2)
    found = rotary.turned(q, torch.arange(9))
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotary.turned(found, -torch.arange(9)), q)


def test_only_the_dimensions_from_the_start_on_turn() -> None:
    x = torch.randn(5, 10)
    found = Rotary(frequencies_F=frequencies(4), start=6).turned(x, torch.arange(5))
    assert torch.equal(found[:, :6], x[:, :6])
    alone = Rotary(frequencies_F=frequencies(4)).turned(x[:, 6:], torch.arange(5))
    assert torch.equal(found[:, 6:], alone)
    with pytest.raises(InvalidCall, match="planes end at 12, and vectors are 10 wide"):
        Rotary(frequencies_F=frequencies(4), start=8).turned(x, torch.arange(5))


def test_past_their_longest_frequencies_are_refused() -> None:
    rotary = Rotary(frequencies_F=frequencies(4), longest=8)
    assert rotary.turned(torch.ones(8, 4), torch.arange(8)).shape == (8, 4)
    for positions in (torch.arange(9), -torch.arange(9)):
        with pytest.raises(InvalidCall, match="hold for 8 positions"):
            rotary.turned(torch.ones(9, 4), positions)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_a_product_depends_on_the_distance_alone(layout: Layout) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(8, generator=generator).double() for _ in "qk")
    rotary = Rotary(frequencies_F=frequencies(8), layout=layout)
    distance = torch.tensor([-3, 0, 1, 40])
    found = rotary.by_distance(q, k, distance)
    for key in (0, 17, 1000):
        turned_k = rotary.turned(k[None], torch.tensor([key]))
        for at, far in enumerate(distance.tolist()):
            turned_q = rotary.turned(q[None], torch.tensor([key + far]))
            assert float(turned_q @ turned_k.T) == pytest.approx(float(found[at]), abs=1e-9)


def test_the_expected_product_is_the_mean_of_random_draws() -> None:
    draws, width = 4000, 32
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(draws, width, generator=generator).double() for _ in "qk")
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    rotary = Rotary(frequencies_F=frequencies(width))
    distance = torch.tensor([0, 1, 7, 100, 5000])
    same = rotary.by_distance(q, q, distance)
    error = 5 * same.std(0) / draws**0.5 + 1e-9
    assert ((same.mean(0) - rope_expected(frequencies(width), distance)).abs() < error).all()
    apart = rotary.by_distance(q, k, distance)
    assert (apart.mean(0).abs() < 5 * width**-0.5 / draws**0.5).all()
    torch.testing.assert_close(
        apart.std(0), torch.full((5,), width**-0.5).double(), rtol=0.05, atol=0
    )


def test_the_bound_is_that_of_a_loop_over_the_paper_s_sums() -> None:
    distance = torch.tensor([0, 3, 50])
    for at, far in enumerate(distance.tolist()):
        turns = [cmath.exp(1j * far * 10_000 ** (-2 * i / 16)) for i in range(8)]
        sums = [abs(sum(turns[:j])) for j in range(1, 9)]
        assert float(rope_bound(frequencies(16), distance)[at]) == pytest.approx(sum(sums) / 8)
    assert wavelengths(frequencies(16))[0] == pytest.approx(2 * math.pi)


def test_similarity_is_the_mean_over_pairs_so_far_apart() -> None:
    table = torch.randn(23, 6, generator=torch.Generator().manual_seed(3))
    found = similarity_by_distance(table)
    for far in range(23):
        products = [float(table[i] @ table[i + far]) for i in range(23 - far)]
        assert float(found[far]) == pytest.approx(sum(products) / len(products), abs=1e-5)
    # Of sinusoids the product is a function of the distance itself.
    expected = rope_expected(frequencies(8), torch.arange(40)) * 4
    torch.testing.assert_close(
        similarity_by_distance(sinusoidal(40, 8)), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: frequencies(5), "even width"),
        (lambda: frequencies(4, base=0), "base above 0"),
        (lambda: sinusoidal(0, 4), "at least 1 position"),
        (lambda: alibi_slopes(0), "at least 1 head"),
    ],
)
def test_what_has_no_meaning_is_refused(wrong, words: str) -> None:
    with pytest.raises(InvalidCall, match=words):
        wrong()
