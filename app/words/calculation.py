"""A calculation in words: the verdict, facts, what is often got wrong, Markdown. Plain text, no markup of the page."""

from collections.abc import Mapping
from typing import Any

from attnscope.app.views.calculator import CalculatorView
from attnscope.profiling.units import count, flop, latency, nbytes, share

Answer = Mapping[str, Any]
_DENSE = ("eager", "sdpa_math", "transformers_eager")
_LEAST_SHARE = 0.001
_PARTS = {"mlp": "feed-forward", "head": "head and logits", "embedding": "embeddings"}
_PASSES = {
    "prefill": "a prompt of {} tokens",
    "decode": "the token after {} others",
    "training": "a training step of {} tokens",
}


def verdict(answer: Answer, room: int) -> tuple[bool, str, str]:
    """Whether it fits, in a word or two, and by how much.

    Args:
        answer: Of the question `calculation`.
        room: Bytes there are.
    """
    total = answer["total_bytes"]
    if total <= room:
        return True, "Fits", f"{nbytes(total)} of {nbytes(room)}, {nbytes(room - total)} left"
    return (
        False,
        "Does not fit",
        f"{nbytes(total)} asked of {nbytes(room)}, {nbytes(total - room)} too much",
    )


def longest_words(longest: int, max_length: int | None) -> str:
    """The longest context that fits, beside what the configuration allows."""
    if longest == 0:
        return "not one token"
    if max_length is not None and longest > max_length:
        return f"{count(longest)} tokens, the model allows {count(max_length)}"
    return f"{count(longest)} tokens"


def reach_words(view: CalculatorView, answer: Answer, reach: Answer) -> str:
    """How far the chosen backend fits; where not this far, which is the first that does.

    Args:
        view: What was asked.
        answer: Of the question `calculation`.
        reach: Of the question `reach`.
    """
    lines = {line["name"]: line for line in reach["lines"] if "longest" in line}
    chosen, most = lines.get(view.backend), answer["model"]["max_length"]
    if chosen is None:
        return ""
    farthest = max(lines.values(), key=lambda line: line["longest"])
    if farthest["longest"] == 0:
        return "No backend fits even one token here."
    if view.length <= chosen["longest"]:
        said = f"{chosen['title']} fits up to {longest_words(chosen['longest'], most)}."
        if farthest["longest"] > chosen["longest"]:
            said += f" {farthest['title']} goes farthest, up to {count(farthest['longest'])}."
        return said
    ends = (
        f"{chosen['title']} ends at {longest_words(chosen['longest'], most)}."
        if chosen["longest"]
        else f"{chosen['title']} fits not one token."
    )
    first = next((line for line in lines.values() if line["longest"] >= view.length), None)
    if first is None:
        return (
            f"{ends} No backend fits {count(view.length)} tokens here; {farthest['title']} goes "
            f"farthest, up to {count(farthest['longest'])}."
        )
    return (
        f"{ends} The first that fits {count(view.length)} is {first['title']}, up to "
        f"{count(first['longest'])}."
    )


def part_of_model(name: str) -> str:
    """A part of a model as a reader calls it."""
    return _PARTS.get(name, name)


def error_words(predicted: float, found: float) -> str:
    """How far a prediction is from what was found, in per cent of that, with its sign."""
    if predicted == found or not found:
        return "0\u202f%" if predicted == found else "none was found"
    percent = 100 * (predicted - found) / found
    digits = f"{percent:+.0f}" if abs(percent) >= 10 else f"{percent:+.2g}"
    return f"{digits}\u202f%".replace("-", "\u2212")


def facts(view: CalculatorView, answer: Answer) -> list[tuple[str, str]]:
    """The line under the verdict: caption and value."""
    done, model = answer["work"], answer["model"]
    found = [
        ("largest batch at this length", batch_words(answer["largest_batch"])),
        ("worst moment in", part_of_model(answer["peak_phase"])),
    ]
    if model["is_decoder"]:
        found.append(("key/value cache, textbook", nbytes(answer["cache_bytes"])))
        found.append(("held by transformers", nbytes(answer["cache_tensor_bytes"])))
    if "seconds" in done:
        found += _times(done)
    else:
        found.append(("time", f"no peak is published for {view.dtype}"))
    return found


def batch_words(batch: int) -> str:
    """The largest batch that fits."""
    return count(batch) if batch else "none"


def cost_words(cost: float) -> str:
    """A price, in whatever currency it was asked."""
    return f"{cost:.3g}"


def _times(done: Mapping[str, Any]) -> list[tuple[str, str]]:
    pace = done["tokens"] / done["seconds"]
    speed = f"{count(round(pace))} tokens/s" if pace >= 10 else f"{pace:.3g} tokens/s"
    found = [
        ("at least, by roofline", f"{latency(done['seconds'])} · at most {speed}"),
        (f"bound by {done['bound']}", f"{flop(done['flops'])}, {nbytes(done['nbytes'])} moved"),
    ]
    if "cost" in done:
        found.append(("a million tokens, at least", cost_words(done["cost"])))
    return found


def layers_words(answer: Answer) -> str:
    """The model's layers, each kind once: `28 full, 32 heads over 8 kv, 128 wide`."""
    model = answer["model"]
    kinds = []
    for layer in model["layers"]:
        words = f"{layer['count']} {layer['kind']}"
        if layer["query_heads"]:
            words += f", {layer['query_heads']} heads over {layer['kv_heads']} kv, {layer['head_dim']} wide"
        if layer["window"]:
            words += f", window {count(layer['window'])}"
        kinds.append(words)
    experts = (
        f" · {model['experts']} experts, {model['active_experts']} a token"
        if model["experts"]
        else ""
    )
    stored = " · weights quantised" if model["is_quantised"] else ""
    parameters = f"{model['architecture']} · {count(model['parameters'])} parameters"
    return f"{parameters} · layers: {'; '.join(kinds)}{experts}{stored}"


def aside(term: str, view: CalculatorView, answer: Answer) -> str:
    """What is often got wrong about a term, in one line; empty for most.

    Args:
        term: Its name.
        view: What was asked.
        answer: What came.
    """
    if term == "attention workspace":
        if view.backend not in _DENSE:
            return "Grows with n, not with n²: only time is quadratic. The saving over eager is no constant, it grows."
        if view.phase == "training":
            return "All heads of one layer. Training keeps the scores of every layer until its backward pass."
        return (
            "All heads of one layer; n²·s alone is one head. Inference holds one layer's at a time."
        )
    if term == "key/value cache":
        grouped = [
            layer["query_heads"] // layer["kv_heads"]
            for layer in answer["model"]["layers"]
            if layer["kv_heads"]
        ]
        if grouped and max(grouped) > 1:
            return f"Grouped queries make the cache {max(grouped)} times smaller, not the score matrix."
    return ""


def title(view: CalculatorView) -> str:
    """What was calculated, in a line."""
    what = _PASSES[view.phase].format(count(view.length))
    return (
        f"{view.title}, {what}, batch {count(view.batch)}, {view.dtype}, {view.backend}, "
        f"on {view.device}"
    )


def markdown(view: CalculatorView, answer: Answer, reach: Answer, room: int) -> str:
    """The whole answer as Markdown."""
    _, word, words = verdict(answer, room)
    rows = [
        f"| {term['name']} | {nbytes(term['nbytes'])} | {term['formula']} | {term['numbers']} | {term['source']} |"
        for term in answer["terms"]
    ]
    return "\n".join(
        [
            f"**{_inert(title(view))}**",
            "",
            f"{word}: {words}. {reach_words(view, answer, reach)}",
            "",
            "| what | memory | formula | with numbers | source |",
            "| --- | ---: | --- | --- | --- |",
            *rows,
            f"| **total** | **{nbytes(answer['total_bytes'])}** | | | |",
            "",
            *(f"* {name}: {value}" for name, value in facts(view, answer)),
            *(f"* {note}" for note in answer["notes"]),
            f"* {layers_words(answer)}",
        ]
    )


def part_words(nbytes_: int, total: int) -> str:
    """A term's share of the whole."""
    portion = nbytes_ / total if total else 0
    return share(portion) if portion >= _LEAST_SHARE else f"under {share(_LEAST_SHARE)}"


def _inert(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)
