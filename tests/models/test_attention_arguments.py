"""transformers' arguments in our terms: read, or refused by name, and never ignored."""

import pytest
import torch
from torch import nn

from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.models.attention_arguments import Asked, read
from attnscope.models.masks import Mask, MaskRule

IDS = torch.tensor([[1, 2]])
MASK = Mask(patterns=(Full(),), query_offset=0, visible_keys_BK=None)


def _read(mask: object = None, *, causal: bool | None = None, **options: object) -> Asked:
    module = nn.Module()
    if causal is not None:
        module.__dict__["is_causal"] = causal
    q, k = torch.zeros(1, 4, 6, 16), torch.zeros(1, 2, 6, 16)
    return read(module, (q, k, k), mask, options, "toy")


def _rule(queries: int, keys: int) -> MaskRule:
    return MaskRule(MASK, torch.Size((1, 1, queries, keys)), torch.device("cpu"), "toy")


def test_what_is_read() -> None:
    asked = _read(scaling=0.5, softcap=30.0, s_aux=torch.ones(4), dropout=0.0, use_cache=True)
    assert (asked.scale, asked.softcap) == (0.5, 30.0)
    assert asked.sinks_H is not None
    assert asked.sinks_H.tolist() == [1, 1, 1, 1]


def test_what_is_assumed() -> None:
    asked = _read()
    assert (asked.scale, asked.softcap, asked.sinks_H) == (0.25, None, None)
    assert asked.mask.patterns == (Causal(),)


@pytest.mark.parametrize(
    ("module", "option", "pattern"),
    [(None, None, Causal()), (False, None, Full()), (True, False, Full()), (False, True, Causal())],
)
def test_the_calls_causality_comes_before_the_modules(
    module: bool | None, option: bool | None, pattern: object
) -> None:
    assert _read(causal=module, is_causal=option).mask.patterns == (pattern,)


def test_a_rule_is_taken_as_it_is() -> None:
    assert _read(_rule(6, 6)).mask is MASK


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"position_bias": IDS}, "position_bias of torch.int64"),
        ({"indices": IDS}, "indexer"),
        ({"block_indices": IDS}, "indexer"),
        ({"cache": object()}, "paged cache"),
        ({"something_new": 3}, "something_new"),
        ({"cu_seq_lens_q": IDS}, "packs several"),
        ({"dropout": 0.1}, r"model\.eval"),
        ({"mask": _rule(6, 5)}, "6 queries and 5 keys"),
        ({"mask": "causal"}, "of type str"),
    ],
)
def test_what_no_backend_computes_is_refused_by_name(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(UnsupportedCall, match=words):
        _read(**options)  # pyright: ignore[reportArgumentType]


def test_sequence_lengths_beside_a_mask_say_the_same() -> None:
    assert _read(_rule(6, 6), cu_seq_lens_q=IDS).mask is MASK


@pytest.mark.parametrize("sinks", [torch.ones(3), 0.5])
def test_sinks_are_one_a_head(sinks: object) -> None:
    with pytest.raises(InvalidCall, match="one logit per head, 4"):
        _read(s_aux=sinks)
