"""The mistakes that kernels like these are made with, each with a check that it should not pass."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.predicate import Predicate
from tests.kernels.triton import (
    test_block_sparse,
    test_decode,
    test_flash_backward,
    test_flash_forward,
    test_paged,
)
from tests.shapes import Case, Inputs

SMALL = Case(id="small", query_heads=2, kv_heads=1, queries=40, keys=40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a wrong kernel says in place of the right one, and the check that should not pass.

    Attributes:
        id: The mistake in a few words.
        module: Of `kernels/triton`.
        right: A piece of its source that occurs once.
        wrong: What takes its place.
        caught: The check.
    """

    id: str
    module: str
    right: str
    wrong: str
    caught: Callable[[], None]


def forward(case: Case) -> Callable[[], None]:
    return lambda: test_flash_forward.assert_right(case.inputs())


def backward(case: Case) -> Callable[[], None]:
    return lambda: test_flash_backward.assert_right(case.inputs())


def split(case: Case, parts: int = 3) -> Callable[[], None]:
    return lambda: test_decode.assert_right(case, "float32", parts)


def paged(case: test_paged.Paged) -> Callable[[], None]:
    return lambda: test_paged.assert_right(case, "float32", 3)


def sparse(case: Case) -> Callable[[], None]:
    return lambda: test_block_sparse.assert_right(case, "float32", test_block_sparse.SMALL)


def with_holes() -> Inputs:
    inputs = replace(SMALL, id="holes", padding="left").inputs()
    seen_BK = torch.arange(40)[None] % 3 != 1
    return replace(inputs, visible_keys_BK=seen_BK)


def forward_with_holes() -> None:
    test_flash_forward.assert_right(with_holes())


def backward_with_holes() -> None:
    test_flash_backward.assert_right(with_holes())


def forward_far_apart() -> None:
    """Keys of which the last lies past 2³¹ elements, and as far before the first is memory too."""
    inputs = Case(id="far", query_heads=1, kv_heads=1, queries=17, keys=17).inputs("float16")
    step = 2**31 // 16 + 16
    memory = torch.from_numpy(np.empty(2**32 + 2**10, np.float16))
    k_BGKD = memory[2**31 :].as_strided(inputs.k_BGKD.shape, (1, 1, step, 1))
    k_BGKD.copy_(inputs.k_BGKD)
    test_flash_forward.assert_right(replace(inputs, k_BGKD=k_BGKD))


CAUSAL = forward(SMALL)
WINDOW = replace(SMALL, pattern=pattern("sliding_window", window=9))
LATER = replace(SMALL, queries=20, query_offset=9)
SINKS = replace(SMALL, sinks=True)
CAPPED = replace(SMALL, softcap=2.0)
PACKED = replace(SMALL, pattern=pattern("packed", lengths=(21, 12)))
FIRST_KEYS = replace(SMALL, pattern=pattern("sinks_window", window=5, sinks=3, causal=True))
GROUPS = replace(SMALL, query_heads=4, kv_heads=2)
CACHE = replace(SMALL, queries=2, keys=150)
PAGES = test_paged.Paged(id="pages", lengths=(70, 33), page_size=16, query_heads=2, kv_heads=1)
STEPS = replace(
    SMALL, pattern=Predicate(function=lambda q, k: (q - k) % 3 == 0, label="every third")
)

FAULTS = (
    Fault(
        id="the window is a key short",
        module="key_visits",
        right="o_keys[None, :] >= o_from[:, None]",
        wrong="o_keys[None, :] > o_from[:, None]",
        caught=forward(WINDOW),
    ),
    Fault(
        id="a query does not see itself",
        module="key_visits",
        right="o_keys[None, :] <= o_to[:, None]",
        wrong="o_keys[None, :] < o_to[:, None]",
        caught=CAUSAL,
    ),
    Fault(
        id="the output is not rescaled",
        module="key_visits",
        right="b_out = b_out * b_shrink[:, None]",
        wrong="b_out = b_out",
        caught=CAUSAL,
    ),
    Fault(
        id="the total is not rescaled",
        module="online_softmax",
        right="b_shrink, b_total * b_shrink +",
        wrong="b_shrink, b_total +",
        caught=CAUSAL,
    ),
    Fault(
        id="heads of one group read the keys of several",
        module="flash_forward",
        right="(head // group).to(tl.int64)",
        wrong="(head % (query_heads // group)).to(tl.int64)",
        caught=forward(GROUPS),
    ),
    Fault(
        id="scores in powers of e are taken for powers of 2",
        module="online_softmax",
        right="return scale * LOG2_E, 1.0",
        wrong="return scale, 1.0",
        caught=CAUSAL,
    ),
    Fault(
        id="the log-sum-exp is one of base 2",
        module="online_softmax",
        right="b_lse = b_highest * unit + tl.log2(b_safe) * LN_2",
        wrong="b_lse = b_highest + tl.log2(b_safe)",
        caught=CAUSAL,
    ),
    Fault(
        id="a sink counts twice",
        module="flash_forward",
        right="tl.where(sink > LOWEST, 1.0, 0.0)",
        wrong="tl.where(sink > LOWEST, 2.0, 0.0)",
        caught=forward(SINKS),
    ),
    Fault(
        id="a sink is forgotten",
        module="flash_forward",
        right="tl.where(sink > LOWEST, 1.0, 0.0)",
        wrong="0.0",
        caught=forward(SINKS),
    ),
    Fault(
        id="the softcap bends but does not scale back",
        module="key_visits",
        right="unit = cap_factor",
        wrong="unit = factor",
        caught=forward(CAPPED),
    ),
    Fault(
        id="keys hidden between visible ones are seen",
        module="key_visits",
        right="m_keys = m_keys & (tl.load(p_shown, mask=m_keys, other=0) != 0)",
        wrong="m_keys = m_keys",
        caught=forward_with_holes,
    ),
    Fault(
        id="the second tile of a wide head is that of the first",
        module="key_visits",
        right="p_rows, m_keys, k_dim, BLOCK_DIM, REST_DIM",
        wrong="p_rows, m_keys, k_dim, 0, REST_DIM",
        caught=forward(replace(SMALL, head_dim=80)),
    ),
    Fault(
        id="holes are not told of",
        module="flash_rule",
        right="has_holes_B = visible_keys_BK.sum(1) < end_B - first_B",
        wrong="has_holes_B = torch.zeros_like(end_B, dtype=torch.bool)",
        caught=forward_with_holes,
    ),
    Fault(
        id="the last tile, a partial one, is skipped",
        module="flash_forward",
        right="run_start, run_end, limit = whole_last, end, end",
        wrong="run_start, run_end, limit = whole_last, end // BLOCK_KEYS * BLOCK_KEYS, end",
        caught=forward(replace(SMALL, pattern=pattern("full"))),
    ),
    Fault(
        id="a block of queries is not started",
        module="flash_forward",
        right="(batch * heads * triton.cdiv(queries, config.block_queries),)",
        wrong="(batch * heads * (queries // config.block_queries),)",
        caught=CAUSAL,
    ),
    Fault(
        id="later queries stand at the first keys",
        module="flash_forward",
        right="o_positions = query_offset + o_rows",
        wrong="o_positions = o_rows",
        caught=forward(LATER),
    ),
    Fault(
        id="an offset of 32 bits",
        module="key_visits",
        right="start = tl.cast(tile, tl.int64)",
        wrong="start = tile",
        caught=forward_far_apart,
    ),
    Fault(
        id="tiles that the diagonal divides are taken for whole",
        module="key_parts",
        right="whole_end = tl.minimum(end, first_position + after + 1)",
        wrong="whole_end = tl.minimum(end, last_position + after + 1)",
        caught=CAUSAL,
    ),
    Fault(
        id="tiles that a window's edge divides are taken for whole",
        module="key_parts",
        right="whole_start = tl.maximum(start, last_position - before)",
        wrong="whole_start = tl.maximum(start, first_position - before)",
        caught=forward(replace(WINDOW, pattern=pattern("local", window=50))),
    ),
    Fault(
        id="first keys are seen before they come",
        module="flash_forward",
        right="FIRST_KEYS_CAUSAL if part == 0 else BOUNDED_TO",
        wrong="False if part == 0 else BOUNDED_TO",
        caught=forward(FIRST_KEYS),
    ),
    Fault(
        id="a block of queries ends with the document of its first",
        module="key_parts",
        right="end = tl.minimum(end, tl.load(p_documents + last_position * 2 + 1))",
        wrong="end = tl.minimum(end, tl.load(p_documents + first_position * 2 + 1))",
        caught=forward(PACKED),
    ),
    Fault(
        id="a document's last token is left out",
        module="key_parts",
        right="tl.load(p_own + 1, mask=m_rows, other=0) - 1",
        wrong="tl.load(p_own + 1, mask=m_rows, other=0) - 2",
        caught=forward(PACKED),
    ),
    Fault(
        id="a block of keys begins with the document of its last",
        module="key_gradient",
        right="start = tl.maximum(start, tl.load(p_documents + first_key * 2) - query_offset)",
        wrong="start = tl.maximum(start, tl.load(p_documents + last_key * 2) - query_offset)",
        caught=backward(PACKED),
    ),
    Fault(
        id="the softcap has no derivative",
        module="flash_gradients",
        right="b_slopes = 1 - b_tanh * b_tanh",
        wrong="b_slopes = b_slopes",
        caught=backward(CAPPED),
    ),
    Fault(
        id="one head of a group gives the keys their gradient",
        module="key_gradient",
        right="for member in range(group):",
        wrong="for member in range(1):",
        caught=backward(SMALL),
    ),
    Fault(
        id="the log-sum-exp has no gradient",
        module="flash_backward",
        right=".sum(-1) - dlse_BHQ",
        wrong=".sum(-1)",
        caught=backward(SMALL),
    ),
    Fault(
        id="the mean of a row's gradients is not taken off",
        module="query_gradient",
        right="(b_dweights - b_delta[:, None])",
        wrong="b_dweights",
        caught=backward(SMALL),
    ),
    Fault(
        id="the queries' gradient is not scaled",
        module="query_gradient",
        right="(b_dq * scale)",
        wrong="b_dq",
        caught=backward(SMALL),
    ),
    Fault(
        id="a key's last query is left out",
        module="key_gradient",
        right="o_rows[None, :] <= o_to[:, None]",
        wrong="o_rows[None, :] < o_to[:, None]",
        caught=backward(WINDOW),
    ),
    Fault(
        id="hidden keys get a gradient",
        module="key_gradient",
        right="m_keys = m_keys & (tl.load(p_shown, mask=m_inside, other=0) != 0)",
        wrong="m_keys = m_keys",
        caught=backward_with_holes,
    ),
    Fault(
        id="a sink pulls the wrong way",
        module="flash_backward",
        right="return -(weights_BHQ * delta_BHQ)",
        wrong="return (weights_BHQ * delta_BHQ)",
        caught=backward(SINKS),
    ),
    Fault(
        id="splits are added without their weights",
        module="decode_parts",
        right="tl.sum(b_part * b_kept[:, None], 0)",
        wrong="tl.sum(b_part, 0)",
        caught=split(CACHE),
    ),
    Fault(
        id="the only split does not divide by its total",
        module="decode",
        right="b_out = b_out / b_safe[:, None]",
        wrong="b_out = b_out * 1.0",
        caught=split(CACHE, parts=1),
    ),
    Fault(
        id="every split counts the sink",
        module="decode",
        right="m_rows, split == 0,",
        wrong="m_rows, split >= 0,",
        caught=split(replace(CACHE, sinks=True)),
    ),
    Fault(
        id="a split leaves its last tile to nobody",
        module="decode",
        right="return first_key, end_key, first, tl.minimum(first + each, end_tile)",
        wrong="return first_key, end_key, first, tl.minimum(first + each, end_tile) - 1",
        caught=split(CACHE),
    ),
    Fault(
        id="the queries of a tile are mistaken for its heads",
        module="decode",
        right="o_heads = kv_head * group + o_rows // query_length",
        wrong="o_heads = kv_head * group + o_rows % group",
        caught=split(replace(CACHE, queries=4)),
    ),
    Fault(
        id="a page is looked up one place early",
        module="decode",
        right="tl.load(p_table + o_keys // PAGE_SIZE, ",
        wrong="tl.load(p_table + tl.maximum(o_keys // PAGE_SIZE - 1, 0), ",
        caught=paged(PAGES),
    ),
    Fault(
        id="every sequence reads the first one's pages",
        module="decode",
        right="p_table += batch * table_stride",
        wrong="p_table += 0",
        caught=paged(PAGES),
    ),
    Fault(
        id="the bits of a mask are read from the neighbour",
        module="block_sparse",
        right=">> o_block[None, :].to(tl.int64)",
        wrong=">> (o_block[None, :] ^ 1).to(tl.int64)",
        caught=sparse(STEPS),
    ),
    Fault(
        id="the last block of a list is skipped",
        module="block_sparse",
        right="tl.load(p_starts + row + 1),",
        wrong="tl.load(p_starts + row + 1) - 1,",
        caught=sparse(STEPS),
    ),
)
