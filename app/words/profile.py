"""A profile in words: its charts for who cannot see them, and what was predicted beside what was measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnscope.app.commands.profile import HEADER
from attnscope.profiling.units import count, flop, latency, nbytes, share

Found = Mapping[str, Any]

OF_ALL = ("latency", "memory", "throughput", "roofline", "cache", "power", "energy")
"""Charts of all cells; each of the others is of one."""
OF_ONE = ("parts", "timeline", "kernels")
TITLES = {
    "latency": "Latency over length",
    "memory": "Peak memory over length",
    "throughput": "Tokens per second over length",
    "roofline": "Roofline",
    "cache": "KV cache in decode",
    "power": "Power over length",
    "energy": "Energy over length",
    "parts": "Time by layer and part",
    "timeline": "Memory by what it is",
    "kernels": "Kernels that ran",
}
PREDICTED = (
    *("backend", "phase", "batch", "tokens", "dtype"),
    *("peak predicted", "measured", "error"),
    *("least time", "measured", "of the least"),
)
"""Of the columns of `predicted`."""
PREDICTED_NOTE = (
    "The least time is that of the arithmetic or of the memory traffic, whichever is longer, at the ceilings of the "
    "device: a bound, from which a run that starts many small kernels is far."
)


def words_of(what: str, found: Found, detail: Found) -> str:
    """What a chart says.

    Args:
        what: A key of `TITLES`.
        found: The answer to `profile`.
        detail: The answer to `profile_detail` for the cell; empty for a chart of all.
    """
    if what == "kernels":
        told = [f"{each['name']} {share(each['share'])}" for each in detail["kernels"]]
    elif what == "roofline":
        told = [
            achieved(each) for each in found["records"] if each["seconds"] and each["prediction"]
        ]
    elif what == "cache":
        told = _cache_words(found)
    elif what in OF_ALL:
        told = [f"{each['backend']} {each['phase']} {_at(what, each)}" for each in found["records"]]
    else:
        return ""
    return "; ".join(told)


def cache_lines(told: Found) -> dict[str, list[int]]:
    """Bytes of the cache at each of its lengths, by the way they are kept."""
    return {
        "contiguous, as it grows": told["grown"],
        f"in pages of {told['page']} tokens": told["paged"],
        f"contiguous, reserved for {count(told['tokens'][-1])}": [told["reserved"]]
        * len(told["tokens"]),
    }


def cache_measured(found: Found) -> list[tuple[int, int]]:
    """Tokens, and bytes of the cache, of the decoding steps of its batch and dtype."""
    told = found["cache"]
    return sorted(
        {
            (each["length"] + 1, each["cache_bytes"])
            for each in found["records"]
            if each["phase"] == "decode"
            and each["cache_bytes"] is not None
            and (each["batch"], each["dtype"]) == (told["batch"], told["dtype"])
        }
    )


def _cache_words(found: Found) -> list[str]:
    told = found["cache"]
    predicted = [
        f"{name}: {nbytes(held[-1])} at {count(told['tokens'][-1])} tokens"
        for name, held in cache_lines(told).items()
    ]
    measured = [f"{nbytes(held)} at {count(at)} tokens" for at, held in cache_measured(found)]
    batch = f"batch {count(told['batch'])}, {told['dtype']}"
    return [batch, *predicted, *(["measured " + ", ".join(measured)] if measured else [])]


def achieved(each: Found) -> str:
    """What a cell reached of its ceiling, and the kernel that did."""
    told, taken = each["prediction"], each["seconds"][0]
    return (
        f"{each['backend']}, {each['phase']} of {each['batch']} by {count(each['length'])}: "
        f"{flop(told['flops'] / taken)}/s, {share(told['seconds'] / taken)} of the ceiling; "
        f"{each['kernel'] or 'an unknown kernel'} ran"
    )


def predicted(records: Sequence[Found]) -> list[tuple[str, ...]]:
    """A row for each cell that was measured and had a prediction."""
    return [
        (
            *(each["backend"], each["phase"], count(each["batch"]), count(each["length"])),
            each["dtype"],
            *_memory(each["predicted_bytes"], each["allocated_bytes"]),
            *_time(each["prediction"], each["seconds"]),
        )
        for each in records
        if each["failure"] is None and (each["predicted_bytes"] or each["prediction"])
    ]


def _memory(predicted: int | None, measured: float | None) -> tuple[str, str, str]:
    if predicted is None or not measured:
        return _known(predicted), _known(measured), "-"
    return nbytes(predicted), nbytes(measured), f"{100 * (predicted / measured - 1):+.2f}\u202f%"


def _known(size: float | None) -> str:
    return "-" if size is None else nbytes(size)


def _time(prediction: Found | None, taken: Sequence[float]) -> tuple[str, str, str]:
    if prediction is None:
        return "-", latency(taken[0]), "-"
    least = prediction["seconds"]
    return latency(least), latency(taken[0]), f"{taken[0] / least:.3g}x"


def _at(what: str, each: Found) -> str:
    if each["failure"] is not None:
        return f"at {count(each['length'])} tokens: {each['failure']['reason']}"
    return f"at {count(each['length'])} tokens: {_SAID[what](each)}"


def _measured(name: str, unit: str) -> Callable[[Found], str]:
    return lambda each: "-" if each[name] is None else f"{each[name]:.3g} {unit}"


_SAID: dict[str, Callable[[Found], str]] = {
    "latency": lambda each: each["row"][HEADER.index("median")],
    "memory": lambda each: each["row"][HEADER.index("peak memory")],
    "throughput": lambda each: f"{each['row'][HEADER.index('tokens/s')]} tokens/s",
    "power": _measured("watts", "W"),
    "energy": _measured("joules_per_token", "J a token"),
}
