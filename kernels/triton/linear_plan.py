"""How the linear-attention kernels cut a call, as data. Imports no Triton."""

from dataclasses import dataclass

import torch

from attnscope.kernels.triton.configurations import block_width


def fits(features: int, dtype: torch.dtype) -> bool:
    """Whether the kernels take so many features: the tiles of more would not fit the registers."""
    return features <= (128 if dtype == torch.float32 else 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearConfig:
    """Tiles and resources of the linear-attention kernels: constants of their compilation.

    Attributes:
        chunk: Keys that are summed into one state; a multiple of `block_keys`.
        block_queries: Queries of a tile; a power of 2, 16 at least, as are all that follow.
        block_keys: Keys of a tile.
        block_features: Features of a state that one program sums.
        block_values: Columns of the values that one program sums or answers.
        num_warps: Of a program.
        num_stages: Tiles in flight between device memory and shared memory.
    """

    chunk: int
    block_queries: int
    block_keys: int
    block_features: int
    block_values: int
    num_warps: int
    num_stages: int


def linear_config(features: int, value_dim: int, dtype: torch.dtype) -> LinearConfig:
    """The configuration for so many features and so wide values.

    Args:
        features: Of queries and keys; as many as `fits` allows.
        value_dim: Of the values, 256 at most.
        dtype: float32, float16 or bfloat16.
    """
    table = _FLOAT32 if dtype == torch.float32 else _HALF
    queries, keys, values, warps, stages = table[max(block_width(features), 64)]
    return LinearConfig(
        chunk=256,
        block_queries=queries,
        block_keys=keys,
        block_features=min(block_width(features), 64),
        block_values=min(block_width(value_dim), values),
        num_warps=warps,
        num_stages=stages,
    )


# By features: queries, keys, columns of values, warps, stages. The largest tried that spill no registers when
# compiled; not timed on a device yet.
_HALF = {64: (64, 64, 64, 4, 2), 128: (64, 32, 64, 4, 3), 256: (64, 32, 64, 4, 2)}
_FLOAT32 = {64: (32, 32, 32, 8, 2), 128: (16, 16, 32, 8, 1)}
