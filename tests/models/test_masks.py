"""Mask rules become patterns: the oracle is what transformers' own mask function evaluates."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import masking_utils

from attnscope.kernels.errors import ModelNotSwappable, UnsupportedCall
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.local import Local
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.scores import visible
from attnscope.models.masks import Mask, MaskRule, absent_mask, dense_mask, mask_function

CONFIG = SimpleNamespace(model_type="toy")
NO_PADS = torch.zeros(2, dtype=torch.long)


def _evaluated(mask: Mask, batch: int, queries: int, keys: int) -> Tensor:
    at = range(mask.query_offset, mask.query_offset + queries)
    seen = mask.visible_keys_BK
    rows = [
        visible(mask.pattern_of(one), at, range(keys), None if seen is None else seen[one])
        for one in range(batch)
    ]
    return torch.stack(rows)


def _rule(rule: Callable, queries: int, keys: int, **others: object) -> MaskRule:
    return mask_function(
        batch_size=2,
        q_length=queries,
        kv_length=keys,
        mask_function=rule,
        **{"config": CONFIG, **others},
    )


def _theirs(rule: Callable, queries: int, keys: int, **others: Any) -> Tensor:
    seen = masking_utils.sdpa_mask(
        batch_size=2,
        q_length=queries,
        kv_length=keys,
        mask_function=rule,
        allow_is_causal_skip=False,
        **others,
    )
    assert seen is not None
    return seen[:, 0].expand(2, queries, keys)


PACKED = masking_utils.packed_sequence_mask_function(torch.tensor([[0] * 5 + [1] * 7] * 2))
# The third document is the first one again, so these are no documents.
RETURNING = masking_utils.packed_sequence_mask_function(
    torch.tensor([[0] * 5 + [1] * 4 + [0] * 3] * 2)
)
RULES = {
    "causal": (masking_utils.causal_mask_function, {}, Causal()),
    "full": (masking_utils.bidirectional_mask_function, {}, Full()),
    "window": (
        masking_utils.sliding_window_causal_mask_function(4),
        {"local_size": 4},
        SlidingWindow(window=4),
    ),
    "long_window": (
        masking_utils.sliding_window_causal_mask_function(12),
        {"local_size": 12},
        Causal(),
    ),
    "local": (
        masking_utils.sliding_window_bidirectional_mask_function(3),
        {"local_size": 3},
        Local(window=6),
    ),
    "long_local": (
        masking_utils.sliding_window_bidirectional_mask_function(12),
        {"local_size": 12},
        Full(),
    ),
    "chunked": (
        masking_utils.chunked_causal_mask_function(4, NO_PADS),
        {},
        pattern("packed", lengths=(4, 4, 4), causal=True),
    ),
    "shifted_chunks": (
        masking_utils.chunked_causal_mask_function(4, torch.tensor([0, 3])),
        {},
        pattern("packed", lengths=(4, 4, 4), causal=True),
    ),
    "packed": (
        masking_utils.and_masks(masking_utils.causal_mask_function, PACKED),
        {},
        pattern("packed", lengths=(5, 7), causal=True),
    ),
    "packed_window": (
        masking_utils.and_masks(masking_utils.sliding_window_causal_mask_function(4), PACKED),
        {"local_size": 4},
        pattern("packed", lengths=(5, 7), sliding_window={"window": 4}),
    ),
    "packed_both_ways": (PACKED, {}, pattern("packed", lengths=(5, 7))),
    "returning": (
        masking_utils.and_masks(masking_utils.causal_mask_function, RETURNING),
        {},
        None,
    ),
    "vmapped": (
        masking_utils.or_masks(
            masking_utils.causal_mask_function, lambda b, h, q, k: (q < 3) & (k < 3)
        ),
        {"use_vmap": True},
        None,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_what_transformers_evaluates(name: str) -> None:
    rule, others, expected = RULES[name]
    ours = _rule(rule, 12, 12, **others)
    assert torch.equal(_evaluated(ours.mask, 2, 12, 12), _theirs(rule, 12, 12, **others))
    if expected is None:
        assert isinstance(ours.mask.patterns[0], Predicate)
    else:
        assert ours.mask.patterns[0] == expected


def test_a_rule_that_depends_on_the_sequence_keeps_one_each() -> None:
    rule, others, _ = RULES["shifted_chunks"]
    assert len(_rule(rule, 12, 12, **others).mask.patterns) == 2


@pytest.mark.parametrize("name", ["causal", "window", "chunked"])
def test_later_queries_keep_their_positions(name: str) -> None:
    rule, others, _ = RULES[name]
    ours = _rule(rule, 3, 9, q_offset=6, **others).mask
    assert ours.query_offset == 6
    assert torch.equal(_evaluated(ours, 2, 3, 9), _theirs(rule, 3, 9, q_offset=6, **others))


def test_a_sliding_cache_shifts_the_keys() -> None:
    rule, others, _ = RULES["window"]
    ours = _rule(rule, 2, 5, q_offset=9, kv_offset=6, **others).mask
    assert ours.query_offset == 3
    theirs = _theirs(rule, 2, 5, q_offset=9, kv_offset=6, **others)
    assert torch.equal(_evaluated(ours, 2, 2, 5), theirs)


@pytest.mark.parametrize(("place", "window"), [(8, 1), (9, 2), (11, 4)])
def test_one_query_in_a_chunk_sees_a_window(place: int, window: int) -> None:
    rule, others, _ = RULES["chunked"]
    ours = _rule(rule, 1, 12, q_offset=place, **others).mask
    assert ours.patterns == (SlidingWindow(window=window),)
    theirs = _theirs(rule, 1, 12, q_offset=place, **others)
    assert torch.equal(_evaluated(ours, 2, 1, 12), theirs)


def test_one_query_with_holes_in_its_view_keeps_its_rule() -> None:
    def every_other(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        return (key <= query) & (key % 2 == 0)

    ours = _rule(every_other, 1, 9, q_offset=8).mask
    assert isinstance(ours.patterns[0], Predicate)
    assert _evaluated(ours, 2, 1, 9).sum() == 2 * 5


def test_a_static_cache_counts_from_the_first_key() -> None:
    ours = _rule(masking_utils.causal_mask_function, 4, 9, q_offset=torch.tensor(0)).mask
    assert ours.query_offset == 0
    theirs = _theirs(masking_utils.causal_mask_function, 4, 9)
    assert torch.equal(_evaluated(ours, 2, 4, 9), theirs)


@pytest.mark.parametrize("name", ["causal", "full", "window", "packed"])
@pytest.mark.parametrize("padding", ["left", "right", "short"])
def test_padding_is_kept_apart(name: str, padding: str) -> None:
    rule, others, _ = RULES[name]
    seen = torch.ones(2, 12, dtype=torch.bool)
    if padding == "short":
        seen = seen[:, :9]
    else:
        seen[1, slice(None, 4) if padding == "left" else slice(8, None)] = False
    ours = _rule(rule, 12, 12, attention_mask=seen, **others).mask
    theirs = _theirs(rule, 12, 12, attention_mask=seen, **others)
    assert torch.equal(_evaluated(ours, 2, 12, 12), theirs)
    assert ours.visible_keys_BK is not None


def test_padding_that_hides_nothing_is_dropped() -> None:
    seen = torch.ones(2, 12, dtype=torch.bool)
    rule = _rule(masking_utils.causal_mask_function, 12, 12, attention_mask=seen)
    assert rule.mask.visible_keys_BK is None


@pytest.mark.parametrize("name", ["causal", "full", "window", "local", "chunked"])
def test_long_rules_are_recognised_by_probing(name: str) -> None:
    rule, others, expected = RULES[name]
    if name == "chunked":
        expected = pattern("packed", lengths=(4,) * 375, causal=True)
    assert _rule(rule, 1500, 1500, **others).mask.patterns == (expected,)


@pytest.mark.parametrize("documents", [[700, 800], [3, 900, 1, 596]])
def test_a_long_packed_text_is_its_documents(documents: list[int]) -> None:
    index = torch.arange(len(documents)).repeat_interleave(torch.tensor(documents)).expand(2, -1)
    packed = masking_utils.packed_sequence_mask_function(index)
    rule = masking_utils.and_masks(masking_utils.causal_mask_function, packed)
    expected = pattern("packed", lengths=documents, causal=True)
    assert _rule(rule, 1500, 1500).mask.patterns == (expected,)


def test_a_long_text_whose_documents_return_is_not_taken_for_packed() -> None:
    # Too short a document for the rows and columns that are probed.
    index = torch.tensor([[0] * 700 + [1] * 7 + [2] * 10 + [1] * 7 + [3] * 776] * 2)
    packed = masking_utils.packed_sequence_mask_function(index)
    rule = masking_utils.and_masks(masking_utils.causal_mask_function, packed)
    assert isinstance(_rule(rule, 1500, 1500).mask.patterns[0], Predicate)


def test_later_queries_of_a_packed_text_keep_the_rule_itself() -> None:
    rule, _, _ = RULES["packed"]
    ours = _rule(rule, 3, 9, q_offset=6).mask
    assert isinstance(ours.patterns[0], Predicate)
    assert torch.equal(_evaluated(ours, 2, 3, 9), _theirs(rule, 3, 9, q_offset=6))


def test_no_mask_of_pairs_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    def counted(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        nonlocal largest
        seen = masking_utils.causal_mask_function(batch, head, query, key)  # pyright: ignore[reportArgumentType]
        largest = max(largest, seen.numel())  # pyright: ignore[reportAttributeAccessIssue]
        return seen  # pyright: ignore[reportReturnType]

    length = 4096
    assert _rule(counted, length, length).mask.patterns == (Causal(),)
    assert largest < length * 64


def test_what_models_do_with_a_mask_in_passing() -> None:
    seen = torch.ones(2, 12, dtype=torch.bool)
    seen[0, 0] = False
    rule = _rule(masking_utils.causal_mask_function, 12, 12, attention_mask=seen)
    assert rule.to("cpu", torch.float32).contiguous() is rule
    assert (rule.ndim, rule.dim(), rule.size(-1), rule.shape) == (4, 4, 12, (2, 1, 12, 12))
    cropped = rule[:, :, :, :10]
    assert cropped.shape == (2, 1, 12, 10)
    assert cropped.mask.visible_keys_BK is not None
    assert cropped.mask.visible_keys_BK.shape == (2, 10)
    assert rule[..., :10].shape == (2, 1, 12, 10)
    assert mask_function(2, 12, 12, attention_mask=rule) is rule


@pytest.mark.parametrize(
    "touch",
    [
        lambda rule: torch.zeros(1) + rule,
        lambda rule: rule + torch.zeros(1),
        lambda rule: torch.where(rule, 0.0, 1.0),
        lambda rule: rule.masked_fill(None, 0),
        lambda rule: rule[0],
        lambda rule: rule[:, :, 1:, :3],
    ],
)
def test_arithmetic_on_a_rule_names_the_architecture(touch: Callable[[MaskRule], object]) -> None:
    rule = _rule(masking_utils.causal_mask_function, 12, 12)
    with pytest.raises(ModelNotSwappable, match="toy"):
        touch(rule)


def _dense(rule: Callable) -> Tensor:
    return _theirs(rule, 12, 12)[:, None].clone()


@pytest.mark.parametrize("name", ["causal", "full", "returning"])
def test_a_dense_mask_is_honoured_exactly(name: str) -> None:
    rule, _, expected = RULES[name]
    given = _dense(rule)
    mask = dense_mask(given, 12, 12, "toy")
    assert torch.equal(_evaluated(mask, 2, 12, 12), given[:, 0])
    if expected is not None:
        assert mask.patterns == (expected,)


def test_a_dense_mask_with_padding_is_recognised() -> None:
    given = _dense(masking_utils.causal_mask_function)
    given[1, :, :, :4] = False
    mask = dense_mask(given, 12, 12, "toy")
    assert mask.patterns == (Causal(),)
    assert torch.equal(_evaluated(mask, 2, 12, 12), given[:, 0])


def test_a_mask_longer_than_the_keys_is_cropped() -> None:
    given = _dense(masking_utils.causal_mask_function)
    mask = dense_mask(given[:, :, :8], 8, 8, "toy")
    assert mask.patterns == (Causal(),)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.ones(2, 1, 12, 12, dtype=torch.int64), "mask of torch.int64"),
        (torch.ones(2, 1, 5, 12, dtype=torch.bool), "no meaning"),
        (torch.ones(2, 1, 12, 5, dtype=torch.bool), "no meaning"),
        (torch.stack([torch.ones(12, 12), torch.eye(12)])[None].bool(), "every head"),
    ],
)
def test_dense_masks_that_cannot_be_honoured_are_refused(given: Tensor, words: str) -> None:
    with pytest.raises(UnsupportedCall, match=words):
        dense_mask(given, 12, 12, "toy")


@pytest.mark.parametrize(
    ("causal", "window", "queries", "keys", "expected", "offset"),
    [
        (True, None, 8, 8, Causal(), 0),
        (True, None, 8, 12, Causal(), 0),
        (True, None, 1, 12, Full(), 11),
        (False, None, 8, 12, Full(), 4),
        (True, 3, 8, 8, SlidingWindow(window=3), 0),
        (True, 30, 8, 8, Causal(), 0),
    ],
)
def test_no_mask_means_what_sdpa_takes_it_for(
    causal: bool, window: int | None, queries: int, keys: int, expected: object, offset: int
) -> None:
    mask = absent_mask(causal=causal, window=window, query_length=queries, key_length=keys)
    assert mask.patterns == (expected,)
    assert mask.query_offset == offset
