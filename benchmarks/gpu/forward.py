"""Goal K1: the forward pass beside the best that PyTorch has, over the grid FlashAttention-3 set.

B·N = 16 384 tokens and H·D = 2048 in every call (arXiv 2407.08608 §4.1). The ratio is our speed over
that of the fastest peer which is right; `of_matmul` is the share of a large product's rate. Of ours, the kernel
in Gluon takes part beside the backend, whether or not that answers with it; `ours` names the faster.
"""

from collections.abc import Iterator

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.patterns.catalogue import pattern
from benchmarks.gpu.bench import Bench, Record, compared
from benchmarks.gpu.trial import gluon_of

TOKENS, WIDTH = 16_384, 2048


def calls(*, toy: bool) -> tuple[AttentionCall, ...]:
    """The plan: head_dim 64 and 128, causal and full, 2k to 16k tokens, bfloat16; the longest first.

    Args:
        toy: Tiny, and in float16, which Triton's interpreter can multiply.
    """
    tokens, width = (32, 32) if toy else (TOKENS, WIDTH)
    lengths = (32, 16) if toy else (16_384, 8192, 4096, 2048)
    return tuple(
        AttentionCall(
            batch=tokens // length,
            query_heads=width // head_dim,
            kv_heads=width // head_dim,
            query_length=length,
            key_length=length,
            head_dim=head_dim,
            value_dim=head_dim,
            dtype="float16" if toy else "bfloat16",
            scale=head_dim**-0.5,
            pattern=pattern(key),
        )
        for length in lengths
        for key in ("causal", "full")
        for head_dim in ((16,) if toy else (128, 64))
    )


def forward(bench: Bench) -> Iterator[Record]:
    """Every call of the plan, judged and timed."""
    return compared(bench, calls(toy=bench.toy), timed=True, further=gluon_of)
