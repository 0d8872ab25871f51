"""A bias by distance: what is added to the score of every pair so many tokens apart, one vector a head.

T5's learned position bias (arXiv 1910.10683 §2.1) and ALiBi (arXiv 2108.12409 §3) are such. The score of
query i and key j, by index, gets column `j − i + Q − 1` of `distance_bias_HR`: the first column is that of
the last query and the first key, the last column that of the first query and the last key, and one column
apart is one token apart. So a call of Q queries and K keys has R = Q + K − 1 columns, and none of the n × n
numbers that they stand for is held.

H query heads, Q queries, K keys, R distances; lower case: those of a part.
"""

import torch
from torch import Tensor


def columns(query_length: int, key_length: int) -> int:
    """R: the distances that a call has."""
    return query_length + key_length - 1


def of_part(bias_HR: Tensor, queries: range, keys: range, *, query_length: int) -> Tensor:
    """The bias of some queries and some keys as a call of their own: a view, `[H, q + k − 1]`.

    Args:
        bias_HR: Of the whole call.
        queries: Indices of its queries, of step 1.
        keys: Its keys, likewise.
        query_length: Q of the whole call.
    """
    first = keys.start - (queries.stop - 1) + query_length - 1
    return bias_HR.narrow(-1, first, columns(len(queries), len(keys)))


def of_pairs(bias_HR: Tensor, query_q: Tensor, key_k: Tensor, *, query_length: int) -> Tensor:
    """What is added to the scores of a rectangle, `[H, q, k]`.

    Args:
        bias_HR: Of the whole call.
        query_q: Indices of queries, in any order.
        key_k: Keys, in any order.
        query_length: Q of the whole call.
    """
    column_qk = (query_length - 1 - query_q)[:, None] + key_k
    # `index_select` takes a quarter of the time of an index of two dimensions.
    return bias_HR.index_select(-1, column_qk.flatten()).unflatten(-1, column_qk.shape)


def of_call(bias_HR: Tensor, query_length: int, key_length: int) -> Tensor:
    """The bias of every pair, `[H, Q, K]`, for those who hold every score anyway."""
    at = torch.arange(max(query_length, key_length), device=bias_HR.device)
    return of_pairs(bias_HR, at[:query_length], at[:key_length], query_length=query_length)
