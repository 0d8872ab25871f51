"""What is drawn of a mechanism in place of a mask, as numbers: groups of heads, pages, positions."""

from typing import TYPE_CHECKING, Any, cast

from attnscope.app.jobs.context import Context

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel

Answer = dict[str, Any]
Arguments = dict[str, Any]

_HEADS, _GROUPS = 32, 8  # of Llama 3.1 8B
_POSITIONS, _WIDTH = 256, 64
_DISTANCES = 4096
_COPIED = "hello attention"
_ALIBI_HEADS, _ALIBI_DISTANCES = 12, 129
_REQUESTS, _POOL, _LONGEST, _SEED = 60, 2048, 512, 0


def picture(arguments: Arguments, context: Context) -> Answer:
    """The numbers of a card's figure.

    Arguments: mechanism.
    """
    from attnscope.app.mechanisms import mechanism

    card = mechanism(str(arguments["mechanism"]))
    return {"figure": card.figure, **_MAKERS[card.figure](context)}


def _groups(context: Context) -> Answer:
    size = _HEADS // _GROUPS
    members = [list(range(at, at + size)) for at in range(0, _HEADS, size)]
    return {"members": members, "model": "llama-3.1-8b"}


def _uptraining(context: Context) -> Answer:
    """The demo's heads before and after."""
    from attnscope.app.jobs.calculation_plan import shape_asked

    layer = shape_asked({"model": "demo"}, context).layers[0]
    size = layer.query_heads // layer.kv_heads
    before = [list(range(at, at + size)) for at in range(0, layer.query_heads, size)]
    return {"before": before, "after": [list(range(layer.query_heads))]}


def _pages(context: Context) -> Answer:
    """A stream of requests served three ways, and the block table at the fullest moment."""
    from attnscope.app.jobs.calculation_plan import shape_asked
    from attnscope.profiling.cache_growth import PAGE
    from attnscope.profiling.paging import requests, slot_bytes
    from attnscope.profiling.serving import serve

    stream = requests(_REQUESTS, seed=_SEED, gap=4.0, prompt=(16, 256), generated=(8, 256))
    size = slot_bytes(shape_asked({"model": "llama-3.1-8b"}, context), "bfloat16")
    given = {"pool": _POOL, "page": PAGE, "longest": _LONGEST, "slot_bytes": size}
    served = {scheme: serve(stream, scheme, **given) for scheme in ("paged", "exact", "longest")}
    paged = served["paged"]
    fullest = max(range(len(paged.moments)), key=lambda at: len(paged.moments[at].placements))
    numbers, table, lengths = paged.block_table(fullest)
    return {
        "numbers": list(numbers),
        "table": table.tolist(),
        "lengths": lengths.tolist(),
        "page": PAGE,
        "step": fullest,
        "requests": _REQUESTS,
        "pool_bytes": _POOL * size,
        "held": {name: one.nbytes("held").tolist() for name, one in served.items()},
        "written": {name: one.nbytes("written").tolist() for name, one in served.items()},
    }


def _cross(context: Context) -> Answer:
    """What the decoder of the copying model reads of its source, a token it says at a time."""
    from attnscope.models.capture import capture

    found = capture(_copying(context), _COPIED, backend="tiled").of("cross")
    assert found.encoded is not None
    (read,), (source,) = found.tokens, found.encoded.tokens
    weights = found.tile(0, 0)
    return {
        "model": found.title,
        # A query says what the next one has read; the last says the end, as the source does.
        "said": [*read[1:], source[-1]],
        "source": list(source),
        "weights": weights.tolist(),
        "mass": float(weights.diagonal().mean()),
    }


def _learned(context: Context) -> Answer:
    """The table that the copying model learned."""
    from attnscope.kernels.positions import similarity_by_distance

    copying = _copying(context)
    # Its class leaves the first two rows to padding.
    embedding = cast("Any", copying.model.get_decoder()).embed_positions
    table_nD = embedding.weight[2:].detach()
    curves = {"mean product": similarity_by_distance(table_nD).tolist()}
    return {"model": copying.title, "table": table_nD.tolist(), "curves": curves}


def _copying(context: Context) -> "LoadedModel":
    from attnscope.models.loading import load

    return context.resources.get("copying", lambda: load("copying", device="cpu"))


def _sinusoidal(context: Context) -> Answer:
    from attnscope.kernels.positions import similarity_by_distance, sinusoidal

    table_nD = sinusoidal(_POSITIONS, _WIDTH)
    closeness = similarity_by_distance(table_nD).tolist()
    return {"table": table_nD.tolist(), "curves": {"mean product": closeness}}


def _rope(context: Context) -> Answer:
    import torch

    from attnscope.kernels.positions import rope_expected
    from attnscope.models.positions import ROPE_VARIANTS, rope_frequencies

    at_M = torch.arange(0, _DISTANCES, 8)
    return {
        "distances": at_M.tolist(),
        "curves": {
            name: rope_expected(rope_frequencies(name, head_dim=128)[0], at_M).tolist()
            for name in ROPE_VARIANTS
        },
    }


def _alibi(context: Context) -> Answer:
    import torch

    from attnscope.kernels.positions import alibi_slopes

    at_M = torch.arange(0, _ALIBI_DISTANCES)
    penalty_HM = -alibi_slopes(_ALIBI_HEADS)[:, None] * at_M
    curves = {f"head {head}": row.tolist() for head, row in enumerate(penalty_HM)}
    return {"distances": at_M.tolist(), "curves": curves}


_MAKERS = {
    "groups": _groups,
    "uptraining": _uptraining,
    "pages": _pages,
    "cross": _cross,
    "sinusoidal": _sinusoidal,
    "learned": _learned,
    "rope": _rope,
    "alibi": _alibi,
}
"""By the name of a card's figure."""
