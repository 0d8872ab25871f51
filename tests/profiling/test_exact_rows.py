"""Blocks of rows are the whole attention, cut: every sequence under its own rule, whatever is padded."""

import pytest
import torch

from attnscope.kernels.reference import reference
from attnscope.models.masks import Mask
from attnscope.models.swapping import LayerCall
from attnscope.profiling import exact_rows
from attnscope.profiling.exact_rows import blocks, most_rows, rows_of
from tests.shapes import CASES, Case, every_case
from tests.tolerance import pytorch_attention


def layer_call(case: Case, backend: str = "tiled") -> LayerCall:
    """A case as a layer's call that was answered with zeros."""
    made = case.inputs("float32")
    call = made.call
    return LayerCall(
        layer=0,
        name="attention",
        backend=backend,
        q_BHQD=made.q_BHQD,
        k_BGKD=made.k_BGKD,
        v_BGKD=made.v_BGKD,
        out_BHQD=torch.zeros(*made.q_BHQD.shape[:3], call.value_dim),
        lse_BHQ=None,
        mask=Mask(
            patterns=(call.pattern,),
            query_offset=call.query_offset,
            visible_keys_BK=made.visible_keys_BK,
        ),
        scale=call.scale,
        softcap=call.softcap,
        sinks_H=made.sinks_H,
        distance_bias_HR=made.distance_bias_HR,
        calls=(call,),
    )


@every_case(biased=True)
def test_blocks_are_the_whole(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    made, call = case.inputs("float32"), layer_call(case)
    monkeypatch.setattr(exact_rows, "SCORES", 3 * case.query_heads * call.k_BGKD.shape[2])
    assert most_rows(call) == 3
    whole = reference(*made.tensors, made.call, **made.extras)
    theirs, _ = pytorch_attention(*made.tensors, made.call, **made.extras)
    queries = call.q_BHQD.shape[2]
    for sequence in range(made.call.batch):
        cut = list(blocks(call, sequence, range(queries)))
        assert [rows.first for rows in cut] == list(range(0, queries, 3))
        exact_HQD = torch.cat([rows.exact().out_BHQD for rows in cut], 2)[0]
        assert torch.allclose(exact_HQD, whole.out_BHQD[sequence], rtol=0, atol=1e-12)
        pytorchs_HQD = torch.cat([rows.pytorchs() for rows in cut], 2)[0]
        assert torch.allclose(pytorchs_HQD, theirs[sequence], rtol=1e-4, atol=1e-5)


def test_a_row_is_taken_with_the_answer_it_was_given() -> None:
    call = layer_call(CASES[0])
    call.out_BHQD[0, :, 2] = 7.0
    rows = rows_of(call, 0, range(2, 3))
    assert (rows.first, rows.call.query_length) == (2, 1)
    assert bool((rows.out_BHQD == 7.0).all())
