from dataclasses import replace

import pytest
import torch

from attnscope.kernels.errors import InvalidCall
from attnscope.kernels.head import Head
from attnscope.kernels.patterns.catalogue import pattern

HEAD = Head(
    q_QD=torch.zeros(3, 8),
    k_KD=torch.zeros(5, 8),
    lse_Q=torch.zeros(3),
    pattern=pattern("causal"),
    query_offset=2,
    scale=0.5,
    softcap=9.0,
)


def test_a_head_is_a_layer_of_one_and_copies_nothing():
    layer = HEAD.layer
    assert (HEAD.query_length, HEAD.key_length) == (3, 5)
    assert (layer.heads, layer.query_length, layer.key_length) == (1, 3, 5)
    assert layer.k_GKD.data_ptr() == HEAD.k_KD.data_ptr()
    assert (layer.query_offset, layer.scale, layer.softcap) == (2, 0.5, 9.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lse_Q": torch.zeros(5)}, r"lse_Q must have shape \[3\], got \(5,\)"),
        ({"visible_keys_K": torch.ones(3, dtype=torch.bool)}, "visible_keys_K"),
        ({"value_norm_K": torch.ones(5, 2)}, "value_norm_K"),
        ({"distance_bias_R": torch.ones(8)}, r"distance_bias_R must have shape \[7\]"),
        ({"q_QD": torch.zeros(1, 3, 8)}, "one head"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(change, words):
    with pytest.raises(InvalidCall, match=words):
        replace(HEAD, **change)
