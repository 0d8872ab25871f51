"""What a head does, in a few numbers, from q, k and the log-sum-exp in one pass a layer.

H query heads, G kv heads, Q, K positions, D head dim.

Conventions, for every diagnostic:

* A query *counts* when it sees at least one key and its own position is not padding (the key at its
  absolute position is not hidden). Averages are over the queries that count, unless said otherwise,
  and NaN where there is none.
* Positions are absolute: query i stands at `query_offset + i`. Distances are in tokens.
* Weights are those of the softmax. With a sink logit they sum to less than 1: masses are shares of
  the whole softmax, sink included; what describes the *shape* of the distribution over the keys
  (entropy, mean distance, keys for 95 %) is taken after dividing by their sum.

Of tensors on a GPU everything that is a sum over keys is read by Triton's kernel in one pass, tokens
and windows included, by the rule of `kernels/cells.py`; the keys for 95 %, for which every row is
sorted, always by PyTorch. `by` demands one for the sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from attnscope.kernels.cells import By, chosen
from attnscope.kernels.errors import InvalidCall, UnsupportedCall
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.streaming import Layer
from attnscope.kernels.survey import ROW_BLOCK_PAIRS, Survey

WINDOWS = (16, 64, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """The words of one diagnostic.

    Attributes:
        key: Field of `Diagnostics`, and its name in tables and links.
        title: Short, for a column or an axis.
        unit: Of the value: "nats", "tokens", or "share" for 0 to 1.
        explanation: What it says, exactly.
        source: Where it is defined.
    """

    key: str
    title: str
    unit: str
    explanation: str
    source: str


DIAGNOSTICS = (
    Diagnostic(
        key="induction",
        title="Induction",
        unit="share",
        explanation="Mean weight on the tokens that followed earlier occurrences of the query's "
        "own token: how much the head looks for what came next last time. Over queries whose token "
        "occurred before.",
        source="arXiv 2209.11895",
    ),
    Diagnostic(
        key="previous_token",
        title="Previous token",
        unit="share",
        explanation="Mean weight on the token just before the query.",
        source="arXiv 2209.11895",
    ),
    Diagnostic(
        key="duplicate_token",
        title="Duplicate token",
        unit="share",
        explanation="Mean weight on earlier occurrences of the query's own token, over queries "
        "whose token occurred before.",
        source="arXiv 2211.00593",
    ),
    Diagnostic(
        key="sink_mass",
        title="Sink mass",
        unit="share",
        explanation="Mean weight on the first token of the sequence that is not padding.",
        source="arXiv 2309.17453",
    ),
    Diagnostic(
        key="entropy_nats",
        title="Entropy",
        unit="nats",
        explanation="Mean entropy of the weights over the keys, after dividing by their sum: 0 "
        "when one key holds everything.",
        source="arXiv 1906.04341",
    ),
    Diagnostic(
        key="entropy_share",
        title="Relative entropy",
        unit="share",
        explanation="Mean of each query's entropy over the log of the number of keys it sees: 1 "
        "when it reads all of them alike. Over queries that see two keys or more.",
        source="arXiv 1906.04341",
    ),
    Diagnostic(
        key="mean_distance",
        title="Mean distance",
        unit="tokens",
        explanation="Mean of the distance between query and key, weighted by the weights.",
        source="arXiv 1906.04284",
    ),
    Diagnostic(
        key="window_mass",
        title="Mass within {window} tokens",
        unit="share",
        explanation="Mean weight on the keys less than {window} tokens away, the query's own "
        "included.",
        source="arXiv 2310.06825",
    ),
    Diagnostic(
        key="keys_for_95",
        title="Keys for 95 %",
        unit="share",
        explanation="The smallest share of the visible keys that holds 95 % of the weight on keys, "
        "averaged over the queries: small for a sparse head.",
        source="arXiv 2407.02490",
    ),
    Diagnostic(
        key="sink_logit_share",
        title="Sink logit",
        unit="share",
        explanation="Mean share of the softmax that goes to the head's sink logit, and to no key; "
        "0 for models without one.",
        source="arXiv 2508.10925",
    ),
)
"""In the order in which they are shown. Words with {window} stand for each window's diagnostic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """The diagnostics of every head of a layer, float32 `[H]` each.

    Conventions are those of the module.

    Attributes:
        entropy_nats: Mean of −Σ p̂ ln p̂, where p̂ are the weights divided by their sum.
        entropy_share: Mean of entropy / ln(visible keys), over counted queries that see two or more.
        sink_mass: Mean Σ p over the first `sinks` keys of the sequence that are not padding.
        mean_distance: Mean of Σ p̂ · |i − j|.
        previous_token: Mean of the weight on i − 1, over counted queries with i ≥ 1 whose
            previous key is not padding.
        duplicate_token: Mean Σ p over keys j < i with token[j] = token[i], over counted queries
            whose token occurred before; None without tokens.
        induction: Mean Σ p over keys j ≤ i with token[j − 1] = token[i], over the same queries; None
            without tokens.
        window_mass: By window w, mean Σ p over |i − j| < w: w keys for a causal head.
        keys_for_95: Mean of (smallest number of keys whose weights reach 95 % of the row's sum) over
            (keys visible to the query). Ties are settled within 1e-5 of the tail's mass.
        sink_logit_share: Mean of exp(sink − lse); 0 without sinks.
    """

    entropy_nats: Tensor
    entropy_share: Tensor
    sink_mass: Tensor
    mean_distance: Tensor
    previous_token: Tensor
    duplicate_token: Tensor | None
    induction: Tensor | None
    window_mass: dict[int, Tensor]
    keys_for_95: Tensor
    sink_logit_share: Tensor

    def by_key(self) -> dict[str, Tensor]:
        """Every diagnostic that has a value, by key: windows as "window_mass_16" and so on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        windows = {f"window_mass_{w}": mass for w, mass in values.pop("window_mass").items()}
        return {key: value for key, value in {**values, **windows}.items() if value is not None}


def described(key: str) -> Diagnostic:
    """The words of a key of `Diagnostics.by_key`.

    Raises:
        InvalidCall: No diagnostic has that key.
    """
    name, window = key, ""
    if key.startswith("window_mass_"):
        name, _, window = key.rpartition("_")
    found = next((words for words in DIAGNOSTICS if words.key == name), None)
    if found is None:
        raise InvalidCall(f"there is no diagnostic {key!r}.")
    return Diagnostic(
        key=key,
        title=found.title.format(window=window),
        unit=found.unit,
        explanation=found.explanation.format(window=window),
        source=found.source,
    )


def diagnose(  # noqa: PLR0913 -- a layer, its tokens and what to ask
    q_HQD: Tensor,
    k_GKD: Tensor,
    lse_HQ: Tensor,
    *,
    pattern: Pattern,
    query_offset: int,
    scale: float,
    softcap: float | None = None,
    sinks_H: Tensor | None = None,
    visible_keys_K: Tensor | None = None,
    distance_bias_HR: Tensor | None = None,
    token_ids_K: Tensor | None = None,
    windows: tuple[int, ...] = WINDOWS,
    sinks: int = 1,
    by: By | None = None,
    progress: Callable[[float], None] | None = None,
) -> Diagnostics:
    """All diagnostics of all heads of a layer, for one sequence; never an array of Q × K elements.

    Args:
        q_HQD: Queries as the kernel saw them.
        k_GKD: Keys, not repeated.
        lse_HQ: Natural log-sum-exp, sink included; −inf where nothing is seen.
        pattern: Which pairs are visible, in absolute positions.
        query_offset: Absolute position of the first query.
        scale: Multiplies q·k.
        softcap: Bound of the scores, or None.
        sinks_H: The sink logits that `lse_HQ` holds, or None.
        visible_keys_K: bool, False where a key is padding.
        distance_bias_HR: `[H, Q + K − 1]`, see `kernels/distance_bias.py`, or None.
        token_ids_K: Integer ids of the tokens at the keys' positions; None leaves the diagnostics
            that need them None.
        windows: Window lengths, in tokens.
        sinks: How many first tokens make the sink.
        by: Who computes the sums; by the rule of `kernels/cells.py` when None.
        progress: Called with the share done; it may raise to stop.

    Raises:
        InvalidCall: Shapes that contradict each other, or a window or `sinks` below 1.
        UnsupportedCall: Triton was demanded and does not take the layer.
    """
    if sinks < 1 or any(window < 1 for window in windows):
        raise InvalidCall(f"windows and sinks must be at least 1, got {windows} and {sinks}.")
    layer = Layer(
        q_HQD=q_HQD,
        k_GKD=k_GKD,
        pattern=pattern,
        query_offset=query_offset,
        scale=scale,
        softcap=softcap,
        visible_keys_K=visible_keys_K,
        distance_bias_HR=distance_bias_HR,
    )
    survey = Survey(layer, lse_HQ, sinks_H, token_ids_K, windows, sinks)
    if chosen(layer, by) == "triton":
        _take_sums(survey, demanded=by is not None)
    groups = layer.k_GKD.shape[0]
    # Rows are sorted whole: when they are long, few heads at a time keep the products tall.
    together = max(1, ROW_BLOCK_PAIRS * groups // (32 * layer.heads * layer.key_length))
    parts = []
    for group in range(0, groups, together):
        share = (group / groups, min(together, groups - group) / groups)
        parts.append(survey.heads(slice(group, group + together), progress, share))
    return _gathered(
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, windows
    )


def _take_sums(survey: Survey, *, demanded: bool) -> None:
    try:
        survey.take_sums_by_triton()
    except UnsupportedCall:
        if demanded:
            raise


def _gathered(values: dict[str, Tensor], windows: tuple[int, ...]) -> Diagnostics:
    values = {name: value.float() for name, value in values.items()}
    masses = {window: values.pop(f"window_mass_{window}") for window in windows}
    return Diagnostics(
        window_mass=masses,
        duplicate_token=values.pop("duplicate_token", None),
        induction=values.pop("induction", None),
        **values,
    )
