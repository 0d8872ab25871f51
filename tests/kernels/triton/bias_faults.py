"""The mistakes that kernels add a bias by distance with, each with a check that it should not pass."""

from dataclasses import replace

from tests.kernels.triton import faults
from tests.kernels.triton.faults import Fault, backward, forward, paged, sparse, split

SMALL = replace(faults.SMALL, id="bias", distance_bias=True)
CAPPED = replace(SMALL, softcap=2.0)
CACHE = replace(faults.CACHE, distance_bias=True)
PAGES = replace(faults.PAGES, distance_bias=True)
STEPS = replace(faults.STEPS, distance_bias=True)

FORWARD, BACKWARD, SPLIT, SPARSE = forward(SMALL), backward(SMALL), split(CACHE), sparse(STEPS)

FAULTS = (
    Fault(
        id="a bias of the next distance",
        module="bias",
        right="o_columns = query_length - 1 + apart",
        wrong="o_columns = query_length + apart",
        caught=FORWARD,
    ),
    Fault(
        id="a bias of the distance the other way",
        module="bias",
        right="o_pairs = (o_apart + REACH)",
        wrong="o_pairs = (-o_apart + REACH)",
        caught=FORWARD,
    ),
    Fault(
        id="every head has the bias of the first",
        module="bias",
        right="heads.to(tl.int64) * (query_length + key_length - 1)",
        wrong="heads.to(tl.int64) * 0",
        caught=FORWARD,
    ),
    Fault(
        id="the vectors of the heads are taken for one distance shorter",
        module="bias",
        right="heads.to(tl.int64) * (query_length + key_length - 1)",
        wrong="heads.to(tl.int64) * (query_length + key_length - 2)",
        caught=FORWARD,
    ),
    Fault(
        id="a bias is taken off",
        module="key_visits",
        right="b_scores += b_bias",
        wrong="b_scores -= b_bias",
        caught=FORWARD,
    ),
    Fault(
        id="a bias in powers of e is taken for one in powers of 2",
        module="key_visits",
        right="b_bias * (1 / (unit * LN_2))",
        wrong="b_bias * (1 / unit)",
        caught=FORWARD,
    ),
    Fault(
        id="a bias is scaled as the products are",
        module="key_visits",
        right="b_bias * (1 / (unit * LN_2))",
        wrong="b_bias",
        caught=forward(CAPPED),
    ),
    Fault(
        id="every block of queries has the bias of the first",
        module="key_visits",
        right="load_bias(p_bias, tile - first_row,",
        wrong="load_bias(p_bias, tile,",
        caught=FORWARD,
    ),
    Fault(
        id="weights are computed anew without their bias in powers of 2",
        module="flash_gradients",
        right="b_scores += b_bias * (1 / LN_2)",
        wrong="b_scores += b_bias",
        caught=BACKWARD,
    ),
    Fault(
        id="the softcap's slope is that of the score with its bias",
        module="flash_gradients",
        right="b_slopes = 1 - b_tanh * b_tanh",
        wrong="b_tanh = tanh(b_scores + b_bias / cap_factor); b_slopes = 1 - b_tanh * b_tanh",
        caught=backward(CAPPED),
    ),
    Fault(
        id="the queries' gradient has the bias of the first block",
        module="query_gradient",
        right="load_bias(p_bias, tile - first_row,",
        wrong="load_bias(p_bias, tile,",
        caught=BACKWARD,
    ),
    Fault(
        id="the keys' gradient has the bias of the distance the other way",
        module="key_gradient",
        right="load_bias(p_bias, first_key - tile,",
        wrong="load_bias(p_bias, tile - first_key,",
        caught=BACKWARD,
    ),
    Fault(
        id="the keys' gradient has the bias of the group's first head",
        module="key_gradient",
        right="bias_of_head(p_bias, head,",
        wrong="bias_of_head(p_bias, kv_head * group,",
        caught=BACKWARD,
    ),
    Fault(
        id="all queries of a decode have the bias of the last",
        module="decode",
        right="longest - key_length + query_length - 1 - o_queries",
        wrong="longest - key_length + 0 * o_queries",
        caught=SPLIT,
    ),
    Fault(
        id="all rows of a decode have the bias of their group's first head",
        module="decode",
        right="bias_of_head(p_bias, o_heads,",
        wrong="bias_of_head(p_bias, kv_head * group + o_heads * 0,",
        caught=SPLIT,
    ),
    Fault(
        id="a short sequence has the bias of the longest one's first keys",
        module="decode",
        right="p_bias += longest - key_length + query_length",
        wrong="p_bias += query_length",
        caught=paged(PAGES),
    ),
    Fault(
        id="a list of blocks takes the bias off",
        module="block_sparse",
        right="b_scores += load_bias(",
        wrong="b_scores -= load_bias(",
        caught=SPARSE,
    ),
    Fault(
        id="every row of blocks has the bias of the first",
        module="block_sparse",
        right="apart = first_key.to(tl.int32) - first_query",
        wrong="apart = first_key.to(tl.int32)",
        caught=SPARSE,
    ),
)
