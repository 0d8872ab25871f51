"""The fake model: it takes no memory, and the region that is traced holds as much as all of them."""

from collections.abc import Callable

import psutil
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.errors import UnknownBackend
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.kernels.tiling import default_block, fullest
from attnscope.models import faked
from attnscope.models.attention_arguments import Asked
from attnscope.models.masks import Mask
from attnscope.models.shape import config_of, shape_of

SEVENTY_BILLION = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 8,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}


def test_a_model_of_fake_tensors_takes_no_memory() -> None:
    config = config_of(shape_of(SEVENTY_BILLION))
    before = psutil.Process().memory_info().rss
    with faked.faked(config, torch.bfloat16, "tiled") as (model, mode), mode, torch.no_grad():
        outputs = model(**faked.prompt(model, 1, 256))
        assert isinstance(outputs.logits, FakeTensor)
        assert tuple(outputs.logits.shape) == (1, 1, 128_256)
        assert sum(weight.nbytes for weight in model.parameters()) > 15 * 2**30
    assert psutil.Process().memory_info().rss - before < 2**29


def test_weights_that_are_tied_stay_tied() -> None:
    shape = shape_of({**SEVENTY_BILLION, "tie_word_embeddings": True})
    with faked.faked(config_of(shape), torch.bfloat16, "eager") as (model, _):
        assert sum(weight.numel() for weight in model.parameters()) == shape.parameters


def _peak(
    run: Callable[..., Tensor],
    heads: tuple[int, int],
    length: int,
    rule: Pattern,
    *,
    biased: bool,
) -> int:
    """Of one call with fake tensors, operation by operation."""
    with FakeTensorMode(), torch.device("cpu"), torch.no_grad():
        q, k, v = (torch.empty(2, count, length, 32) for count in (heads[0], heads[1], heads[1]))
        call = AttentionCall.of(q, k, v, pattern=rule, has_distance_bias=biased)
        asked = Asked(
            mask=Mask(patterns=(rule,), query_offset=0, visible_keys_BK=None),
            scale=call.scale,
            softcap=None,
            sinks_H=None,
            distance_bias_HR=torch.empty(heads[0], 2 * length - 1) if biased else None,
        )
        with MemTracker() as tracker:
            kept = run("tiled", (q, k, v), call, asked)
            assert tuple(kept.shape) == (2, heads[0], length, 32)
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def _rows(heads: tuple[int, int], length: int, rule: Pattern) -> int:
    """Of the region that is traced."""
    q, k = (torch.empty(2, count, length, 32, device="meta") for count in heads)
    call = AttentionCall.of(q, k, k, pattern=rule)
    found = fullest(call, default_block(call, torch.device("cpu")))
    queries = found.queries.stop - found.queries.start
    return found.sequences.stop * found.kv_heads.stop * call.group_size * queries


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
@pytest.mark.parametrize("rule", [Causal(), SlidingWindow(window=700)])
@pytest.mark.parametrize("biased", [False, True])
def test_one_region_holds_as_much_as_all_of_them(
    heads: tuple[int, int], rule: Pattern, biased: bool
) -> None:
    whole = _peak(faked._whole, heads, 2048, rule, biased=biased)
    one = _peak(faked._fullest_region, heads, 2048, rule, biased=biased)
    # The region has an output and a log-sum-exp of its own beside the whole ones.
    assert 0 <= one - whole <= _rows(heads, 2048, rule) * (32 + 1) * 4


def test_an_unknown_backend_is_refused() -> None:
    config = config_of(shape_of("demo"))
    with pytest.raises(UnknownBackend), faked.faked(config, torch.float32, "magic"):
        pass
