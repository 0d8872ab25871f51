"""Advice in words, for the page and the command line; plain text."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attnscope.profiling.laid_patterns import REACH_TOKENS
from attnscope.profiling.units import count, flop, latency, nbytes, share

Answer = Mapping[str, Any]

HEADER = ("", "memory", "least time", "expected", "error", "loss", "reaches", "measured")
"""Of the columns of `rows`."""
REACH = (
    f"Reaches: of the first {count(REACH_TOKENS)} tokens, how many the last can hear of through all layers; "
    "counted. Error: of attention's output. Loss: nats a token, before and with it."
)
BEYOND = (
    "State-space models (S4, arXiv 2111.00396; Mamba, arXiv 2312.00752) lie past attention here: their cost "
    "grows with n alone and their state not at all. They are other models, not a setting of this one."
)


def recommendation(answer: Answer) -> str:
    """The first, in a sentence."""
    first = answer["ranked"][0]
    if not first["fits"]:
        return (
            f"Nothing fits {nbytes(answer['room_bytes'])}. {first['title']} comes nearest, with "
            f"{nbytes(first['nbytes'])}."
        )
    what = "exact" if first["exact"] else f"changes the output by {share(first['error'])}"
    return f"{first['title']}: {what}, {nbytes(first['nbytes'])}, {_time(first)}."


def reasons(answer: Answer) -> Iterator[str]:
    """Why it is first, and what comes second."""
    ranked = answer["ranked"]
    first = ranked[0]
    ties = [each["title"] for each in leaders(answer)[1:] if each["rank"] == first["rank"]]
    if ties:
        yield (
            f"Equal in every number: {', '.join(ties)}. The order among equals is the registry's; measure them on "
            "the page Profile, and the runs decide."
        )
    second = next((each for each in ranked if each["key"] == answer["runner_up"]), None)
    if second is None:
        yield "There is no runner-up: nothing else that is allowed fits."
    elif second["rank"] != first["rank"]:
        times = f"{second['expected_s'] / first['expected_s']:.3g}"
        than = "as quick" if times == "1" else f"{times} times as long"
        yield f"Runner-up: {second['title']}, {nbytes(second['nbytes'])}, {_time(second)}, {than}."
    if answer["judged"] is not None:
        yield _judged(answer["judged"])
    if answer["unknown"]:
        yield _unknown(answer)
    if answer["stretch"] != 1:
        yield (
            "Times are stretched by what was measured of this model on this device; those that nobody measured by "
            f"the median of the others, {answer['stretch']:.3g}."
        )
    else:
        yield (
            "No run of this model on this device is in the history: the times are the least that its rates allow."
        )


def changes(answer: Answer) -> Iterator[str]:
    """What would change the answer, a sentence each."""
    for change in answer["changes"]:
        yield _WORDS[change["what"]](change, answer)


def leaders(answer: Answer) -> list[Answer]:
    """The best of each family, the best first: the others differ from it in numbers alone."""
    best: dict[str, Answer] = {}
    for each in answer["ranked"]:
        best.setdefault(each["family"], each)
    return list(best.values())


def left_out(answer: Answer) -> list[tuple[str, str]]:
    """What is no candidate, and why: families that are left out for one reason in one row."""
    by_reason: dict[str, list[Answer]] = {}
    for each in answer["excluded"]:
        reason = each["family"] if each["error"] is not None else each["reason"]
        by_reason.setdefault(reason, []).append(each)
    return [_told(some) for some in by_reason.values()]


def _told(some: Sequence[Answer]) -> tuple[str, str]:
    """Candidates that are left out for one reason: which, and why."""
    first = some[0]
    if len(some) == 1:
        return first["title"], first["reason"]
    families = Counter(each["family"].replace("_", " ") for each in some)
    if first["error"] is None:
        named = (name if times == 1 else f"{name} ({times})" for name, times in families.items())
        return f"{len(some)}, of {len(families)} families", f"{first['reason']}: {', '.join(named)}"
    least, most = (share(bound(each["error"] for each in some)) for bound in (min, max))
    change = least if least == most else f"{least} to {most}"
    return f"{next(iter(families))}, {len(some)} of them", f"they change the output by {change}"


def _unknown(answer: Answer) -> str:
    """What is to be known of errors that nobody measured, and how."""
    if answer["judged"] is None:
        return (
            f"What {count(answer['unknown'])} of the mechanisms change of this model nobody has measured, and no "
            "formula knows it: measure it on a prompt (below; attnscope advise --measure)."
        )
    return (
        f"Of {count(answer['unknown'])} the error is not known: they hide nothing in a text so short, or were not "
        "asked about when it was measured. Measure again, on a longer prompt."
    )


def _judged(judged: Answer) -> str:
    what = "Errors" if judged["unjudged"] else "Errors and losses"
    return (
        f"{what} were measured on its own q, k and v over {count(judged['tokens'])} tokens, "
        f"{judged['created'][:10]}: “{' '.join(judged['text'].split())}”. {judged['unjudged']}".strip()
    )


def rows(some: Sequence[Answer]) -> list[tuple[str, ...]]:
    """Ranked candidates as a table; see `HEADER`."""
    return [
        (
            each["title"],
            nbytes(each["nbytes"]) + ("" if each["fits"] else ", does not fit"),
            latency(each["least_s"]),
            latency(each["expected_s"]),
            "exact" if each["exact"] else share(each["error"]),
            _loss(each),
            "" if each["reach"] is None else count(each["reach"]),
            quoted(each),
        )
        for each in some
    ]


def _loss(each: Answer) -> str:
    if each["exact"]:
        return "as it is"
    if each["loss"] is None:
        return "not measured"
    before, after = each["loss"]
    return f"{before:.3f} → {after:.3f}"


def quoted(each: Answer) -> str:
    """The measured run of a candidate, with its date and device."""
    run = each["quoted"]
    if run is None:
        return "no run"
    return (
        f"{latency(run['median_s'])} at {count(run['batch'])} by {count(run['length'])}, "
        f"{run['behind']:.3g} times its least time, {run['device_name']}, {run['created'][:10]}"
    )


def numbers(answer: Answer) -> str:
    """The numbers that were used."""
    first = answer["ranked"][0]
    return (
        f"{answer['device']} ({answer['device_source']}), {nbytes(answer['room_bytes'])} free; the first computes "
        f"{flop(first['flops'])} and moves {nbytes(first['moved_bytes'])}. Memory is the calculator's peak, least "
        "time the roofline's."
    )


def _time(each: Answer) -> str:
    return f"{'expected' if each['quoted'] else 'at least'} {latency(each['expected_s'])}"


def _then(change: Answer) -> str:
    if change["first"] is None:
        return ""
    return f"; then {change['first']}" if change["first"] else "; then nothing fits"


def _phase(change: Answer, answer: Answer) -> str:
    other = "the next token" if answer["phase"] == "prefill" else "a prompt"
    if change["first"] == answer["ranked"][0]["title"]:
        return f"Phase: for {other} it would be first as well."
    return f"Phase: for {other} {change['first'] or 'nothing'} would be first."


def _exactness(change: Answer, answer: Answer) -> str:
    del answer
    if not change["at"]:
        return f"Exactness: were none tolerated, {change['first'] or 'nothing'} would be first."
    return f"Exactness: with {share(change['at'])} of error tolerated, {change['first']} would be first."


def _attention(change: Answer, answer: Answer) -> str:
    if answer["phase"] == "decode":
        return (
            f"From {count(int(change['at']))} tokens on the cache is more to read than the weights."
        )
    return (
        f"From {count(int(change['at']))} tokens on attention is more arithmetic than all the rest."
    )


_WORDS = {
    "fits": lambda change, _: f"Length: it fits up to {count(change['at'])} tokens{_then(change)}.",
    "longer": lambda change, _: (
        f"Length: from {count(change['at'])} tokens on {change['first'] or 'nothing'} is first."
    ),
    "shorter": lambda change, _: (
        f"Length: at {count(change['at'])} tokens and below {change['first'] or 'nothing'} is first."
    ),
    "memory": lambda change, _: (
        f"Memory: it needs {nbytes(change['at'])}; with less{_then(change).lstrip(';')}."
    ),
    "batch": lambda change, _: (
        f"Batch: it fits up to {count(change['at'])} sequences{_then(change)}."
    ),
    "phase": _phase,
    "exactness": _exactness,
    "attention": _attention,
}


def lines(answer: Answer) -> Sequence[str]:
    """All of it but the table, a line each."""
    beyond = [BEYOND] if answer["beyond"] else []
    return [recommendation(answer), *reasons(answer), *changes(answer), *beyond, numbers(answer)]
