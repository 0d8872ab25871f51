"""What a check of backends found, in words and as rows: for the page, the files and the command line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnscope.profiling.units import count, latency, nbytes, share

if TYPE_CHECKING:
    from attnscope.profiling.backend_check import BackendResult
    from attnscope.profiling.head_errors import HeadError

Described = dict[str, Any]
Tokens = Sequence[Sequence[str]]

HEADER = (
    "backend",
    "verdict",
    "worst head",
    "error",
    "logits",
    "same top token",
    "median",
    "p10 - p90",
    "speed-up",
    "peak memory",
    "kernel that ran",
    "to know",
)
"""Of the columns of a row."""

_NONE = "-"


def described(results: "Sequence[BackendResult]", tokens: Tokens) -> list[Described]:
    """Results as the page draws them, from what `check` returned or has told until now.

    Args:
        results: In the order of the table.
        tokens: The tokens of each prompt, which a wrong cell names.

    Returns:
        Of each: name, title, exact, verdict; reason and remedy, empty where it ran; `row`, its texts under `HEADER`;
        `logit_difference`, `same_top_token` (a share), `seconds` (median, 10th and 90th percentile), `runs`,
        `unsettled`, `shortened`, `allocated_bytes`, `speed_up`, `kernel`, `fallback`, None or empty where not
        measured; `heads` (layer, head, relative, allowed and largest error, whether it is wrong); and `worst`, what
        `worst_of` says.
    """
    from attnscope.profiling.backend_check import BASELINE, speed_up

    baseline = next((each for each in results if each.name == BASELINE), None)
    return [
        {
            "name": each.name,
            "title": each.title,
            "exact": each.exact,
            "verdict": verdict(each),
            "reason": "" if each.failure is None else each.failure.reason,
            "remedy": "" if each.failure is None else each.failure.remedy,
            "row": row_of(each, baseline),
            "seconds": None
            if each.timing is None
            else [each.timing.median_s, each.timing.p10_s, each.timing.p90_s],
            "unsettled": "" if each.timing is None else each.timing.unsettled,
            "shortened": each.timing is not None and each.timing.shortened,
            "runs": 0 if each.timing is None else each.timing.count,
            "allocated_bytes": None if each.peak is None else each.peak.allocated.value,
            "speed_up": None if (ratio := speed_up(each, baseline)) is None else ratio.value,
            "kernel": "" if each.attention is None else each.attention.paths,
            "fallback": "" if each.attention is None else each.attention.fallback,
            "logit_difference": None if each.logits is None else each.logits.largest.value,
            "same_top_token": None if each.logits is None else each.logits.agreement.value,
            "heads": [
                {
                    "layer": head.layer,
                    "head": head.head,
                    "relative": head.relative,
                    "allowed": head.allowed,
                    "largest": head.largest,
                    "wrong": each.exact and head.cell is not None,
                }
                for head in each.heads
            ],
            "worst": worst_of(each, tokens),
        }
        for each in results
    ]


def verdict(result: "BackendResult") -> str:
    """One word or two: exact, approximates, wrong, refused, out of memory."""
    if result.failure is not None:
        return result.failure.outcome.replace("_", " ")
    return "exact" if result.exact else "approximates"


def row_of(result: "BackendResult", baseline: "BackendResult | None") -> tuple[str, ...]:
    """A result as text, in the columns of `HEADER`."""
    worst, logits, timing, peak = result.worst, result.logits, result.timing, result.peak
    measured = (
        _NONE if worst is None else f"{worst.layer}.{worst.head}",
        _NONE if worst is None else error_words(worst.relative),
        *(_logits(result) if logits is not None else (_NONE, _NONE)),
        _NONE if timing is None else latency(timing.median_s),
        _NONE if timing is None else f"{latency(timing.p10_s)} - {latency(timing.p90_s)}",
        _speed_up(result, baseline),
        _NONE if peak is None or peak.allocated.value is None else nbytes(peak.allocated.value),
        _NONE if result.attention is None else result.attention.paths,
    )
    return (result.name, verdict(result), *measured, "; ".join(_to_know(result)))


def provenance(facts: Described) -> str:
    """Where the figures come from, in one line; `facts` as `check_work` writes them."""
    model, machine = facts["model"], facts["machine"]
    tokens = [count(len(each)) for each in facts["tokens"]]
    told = [
        f"model {model['source']}",
        f"revision {model['revision']}" if model["revision"] else "",
        model["dtype"],
        f"{' and '.join(tokens)} tokens",
        f"device {machine['device']} ({machine['name']}, {count(machine['threads'])} threads)",
        *(f"{name} {version}" for name, version in machine["versions"]),
        f"checked {facts['created'][:19].replace('T', ' ')} UTC",
    ]
    return " · ".join(filter(None, told))


def error_words(relative: float | None) -> str:
    """A relative error, or that it is none."""
    return "NaN or infinite" if relative is None else f"{relative:.1e}"


def worst_of(result: "BackendResult", tokens: Tokens) -> Described | None:
    """The head to look at first, in words: of a wrong backend its first wrong cell, and why where that is proven."""
    cause = result.cause
    head = next(
        (
            each
            for each in result.heads
            if cause is not None and (each.layer, each.head) == (cause.layer, cause.head)
        ),
        result.worst,
    )
    if head is None:
        return None
    cell = head.cell if result.exact else None
    told: Described = {
        "layer": head.layer,
        "head": head.head,
        "relative": head.relative,
        "allowed": head.allowed if result.exact else None,
        "largest": head.largest,
        "cell": None,
        "queries": "",
        "cause": "",
        "key": None,
    }
    if cell is None:
        return told
    has_cause = cause is not None and (cause.layer, cause.head) == (head.layer, head.head)
    key = cause.key if cause is not None and has_cause else None
    return told | {
        "cell": {
            "sequence": cell.sequence,
            "query": cell.query,
            "channel": cell.channel,
            "found": cell.found,
            "right": cell.right,
            "token": _token(tokens, cell.sequence, cell.query),
        },
        "queries": _queries(head),
        "cause": cause.words if cause is not None and has_cause else "",
        "key": key,
        "key_token": "" if key is None else _token(tokens, cell.sequence, key),
    }


def _queries(head: "HeadError") -> str:
    if head.wrong_from is None:
        return "no single cell is beyond what a cell may err, but the head as a whole is"
    if head.wrong_queries == 1:
        return "the only wrong query"
    return f"{head.wrong_queries} wrong queries, from {head.wrong_from} to {head.wrong_to}"


def _token(tokens: Tokens, sequence: int, at: int) -> str:
    known = tokens[sequence] if sequence < len(tokens) else ()
    return known[at] if 0 <= at < len(known) else ""


def _logits(result: "BackendResult") -> tuple[str, str]:
    assert result.logits is not None
    largest, agreement = result.logits.largest, result.logits.agreement
    if largest.value is None or agreement.value is None:
        return "NaN or infinite", _NONE
    return f"{largest.value:.1e}", share(agreement.value)


def _speed_up(result: "BackendResult", baseline: "BackendResult | None") -> str:
    from attnscope.profiling.backend_check import speed_up

    ratio = speed_up(result, baseline)
    return _NONE if ratio is None else f"{ratio.value:.2f}\N{MULTIPLICATION SIGN}"


def _to_know(result: "BackendResult") -> list[str]:
    """The reason and the remedy of a failure, what ran instead, and why a figure is not to be quoted."""
    failure, timing = result.failure, result.timing
    if failure is not None:
        return [" ".join(filter(None, [f"{failure.reason.rstrip('.')}.", failure.remedy]))]
    told = ["" if result.attention is None else result.attention.fallback]
    if timing is not None:
        told += [timing.unsettled, "cut short by its budget" * timing.shortened]
    return list(filter(None, told))
