"""A loaded model's positions: what it has, and what they do to its own q·k over the distance; found, and kept."""

from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.kept_answers import rounded
from attnscope.app.jobs.mechanism_folder import Findings

if TYPE_CHECKING:
    from attnscope.models.position_effect import LayerEffect, PositionEffect
    from attnscope.models.positions import ModelPositions

Arguments = dict[str, Any]
Answer = dict[str, Any]

_ROWS, _COLUMNS = 256, 128  # of a table that is drawn
_FARTHEST, _CURVE = 4096, 513
_LOADED = 0.8


def find_positions(arguments: Arguments, context: Context) -> Answer:
    """Find a model's positions, and keep what was found for whoever asks the same.

    Args:
        arguments: source, revision, device and dtype as for `load`; text.
        context: Asked between any two layers whether it was cancelled.

    Returns:
        What `described` says.
    """
    from attnscope.app.jobs.work import models, wanted
    from attnscope.models.position_effect import position_effect

    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, _LOADED, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        running = context.part(_LOADED, 1.0, "Running the prompt")
        found = position_effect(model, arguments["text"], progress=running)
        answer = described(found, model.title)
    Findings(context.settings.data, "positions").keep(_asked(arguments), answer)
    return answer


def positions_found(arguments: Arguments, context: Context) -> Answer:
    """What was found of a model before, under `found`; None where nobody asked that yet."""
    return {"found": Findings(context.settings.data, "positions").find(_asked(arguments))}


def described(found: "PositionEffect", title: str) -> Answer:
    """What was found as JSON.

    Args:
        found: Of the model.
        title: Of the model.

    Returns:
        model, kinds, evidence, rope_type, tokens, refusal; table (rows of the vectors added, thinned, and
        positions, how many there are) and curves with distances, where it has some; layers, each with
        layer, kind, distances, scores and parts (None where nothing is turned).
    """
    has = found.positions
    return {
        "model": title,
        "kinds": list(has.kinds),
        "evidence": has.evidence,
        "rope_type": has.rope_type,
        "tokens": found.tokens,
        "refusal": found.refusal,
        **_own(has, found.heads),
        "layers": [_layer(each) for each in found.layers],
    }


def _own(has: "ModelPositions", heads: int) -> Answer:
    """What the positions are by themselves, no prompt needed."""
    import torch

    from attnscope.kernels.positions import alibi_slopes, rope_expected, similarity_by_distance
    from attnscope.models.position_effect import thinned

    if has.table is not None:
        curve_n = similarity_by_distance(has.table.cpu())
        return {
            "table": thinned(has.table.cpu(), _ROWS, _COLUMNS).tolist(),
            "positions": len(has.table),
            "distances": list(range(len(curve_n))),
            "curves": {"mean product": curve_n.tolist()},
        }
    rotary = next((layer.rotary for layer in has.layers if layer.rotary is not None), None)
    farthest = _FARTHEST if rotary is None or rotary.longest is None else rotary.longest
    at_M = torch.linspace(0, min(farthest, _FARTHEST), _CURVE).round().long().unique()
    if rotary is not None:
        expected_M = rope_expected(rotary.frequencies_F.cpu(), at_M)
        return {"distances": at_M.tolist(), "curves": {"its own frequencies": expected_M.tolist()}}
    if "alibi" in has.kinds:
        penalty_HM = -alibi_slopes(heads)[:, None] * at_M
        return {
            "distances": at_M.tolist(),
            "curves": {f"head {head}": row.tolist() for head, row in enumerate(penalty_HM)},
        }
    return {}


def _layer(effect: "LayerEffect") -> Answer:
    parts = effect.position_HM
    return {
        "layer": effect.layer,
        "kind": effect.kind,
        "distances": effect.distance_M.tolist(),
        "scores": rounded(effect.score_HM.cpu().numpy()),
        "parts": None if parts is None else rounded(parts.cpu().numpy()),
    }


def _asked(arguments: Arguments) -> Arguments:
    return {name: arguments.get(name) for name in ("source", "revision", "device", "dtype", "text")}
