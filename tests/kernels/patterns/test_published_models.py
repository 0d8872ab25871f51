"""Longformer and BigBird as transformers computes them: which token's output moves with which input.

A layer mixes positions in its attention alone, so in a model of one layer the gradient of an output by
another position's input is nonzero where that pair is visible, and nowhere else.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BigBirdConfig, BigBirdModel, LongformerConfig, LongformerModel
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import Pattern
from tests.kernels.patterns.rules import bigbird_draws

TINY: dict[str, Any] = {
    "vocab_size": 10,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 80,
}


def reached(run: Callable[[Tensor], Tensor], length: int) -> np.ndarray:
    """Which inputs each output depends on, bool `[length, length]`."""
    torch.manual_seed(0)
    # A random direction: a layer norm's outputs sum to a constant.
    direction, inputs = torch.randn(16), torch.randn(1, length, 16, requires_grad=True)
    out_Q = run(inputs)[0] @ direction
    rows = [
        torch.autograd.grad(out, inputs, retain_graph=True)[0][0].abs().sum(-1) for out in out_Q
    ]
    return (torch.stack(rows) > 0).numpy()


def seen(found: Pattern, length: int) -> np.ndarray:
    every = torch.arange(length)
    return found.visible(every[:, None], every[None]).numpy()


@pytest.mark.parametrize(("window", "global_tokens"), [(4, 0), (4, 3), (8, 1), (6, 9)])
def test_longformer_is_the_model_of_transformers(window: int, global_tokens: int) -> None:
    torch.manual_seed(0)
    model = LongformerModel(LongformerConfig(**TINY, attention_window=[window])).eval()
    length = 24
    marked = (torch.arange(length)[None] < global_tokens).long()

    def run(inputs_embeds: Tensor) -> Tensor:
        return model(inputs_embeds=inputs_embeds, global_attention_mask=marked).last_hidden_state

    found = pattern("longformer", window=window, global_tokens=global_tokens)
    assert np.array_equal(reached(run, length), seen(found, length))


def bigbird_of(block: int, draws: int) -> BigBirdModel:
    torch.manual_seed(0)
    return BigBirdModel(BigBirdConfig(**TINY, block_size=block, num_random_blocks=draws)).eval()


def with_a_global_end(found: Pattern, length: int, block: int) -> np.ndarray:
    """What the model shows besides: its last block is global too, and ours knows of no last one."""
    mask = seen(found, length)
    mask[-block:] = mask[:, -block:] = True
    return mask


def test_bigbird_without_draws_is_the_model_of_transformers_in_evaluation() -> None:
    """It draws in training only; in evaluation every draw is the first block, which is global."""
    block, length = 4, 40
    model = bigbird_of(block, draws=1)
    found = pattern(
        "bigbird", window=3 * block, global_tokens=block, random_blocks=0, block=block, seed=0
    )
    found_by_model = reached(lambda inputs: model(inputs_embeds=inputs).last_hidden_state, length)
    assert np.array_equal(found_by_model, with_a_global_end(found, length, block))


def test_bigbird_is_the_model_of_transformers_with_the_same_draws(monkeypatch) -> None:
    block, blocks, draws = 2, 14, 2
    names: dict[str, Any] = {
        "window": 3 * block,
        "global_tokens": block,
        "random_blocks": draws,
        "block": block,
        "seed": 5,
    }

    def ours(*_: object, num_heads: int, **__: object) -> list[np.ndarray]:
        # The rows between the first block and the last; block 0 where there are too few to draw.
        rows = [sorted(bigbird_draws(row, **names)) for row in range(1, blocks - 1)]
        return [np.array([[0] * (draws - len(row)) + row for row in rows])] * num_heads

    monkeypatch.setattr(BigBirdBlockSparseAttention, "_bigbird_block_rand_mask_with_head", ours)
    model, length = bigbird_of(block, draws), block * blocks
    found_by_model = reached(lambda inputs: model(inputs_embeds=inputs).last_hidden_state, length)
    expected = with_a_global_end(pattern("bigbird", **names), length, block)
    assert np.array_equal(found_by_model, expected)
    without = with_a_global_end(pattern("bigbird", **{**names, "random_blocks": 0}), length, block)
    assert expected.sum() > without.sum()
