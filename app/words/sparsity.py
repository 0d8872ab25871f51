"""What the page Sparsity says of a mask and of a pattern's effect, in words and numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from attnscope.app.asking.captures import Shown
from attnscope.app.page_session import Notice
from attnscope.app.views.sparsity import SparsityView
from attnscope.profiling.units import count, flop, latency, nbytes, share

Answer = Mapping[str, Any]

QUIET = (
    "A sparse pattern is exact over its pairs, and a different function from dense attention: "
    "the error is what that difference makes of each head's output."
)


def no_mask(view: SparsityView, best: Answer | None, made: Answer | None) -> str:
    """Why there is no mask to draw; empty where there is one.

    Args:
        view: What the page shows.
        best: What `sparsity_asking.fitting` gives.
        made: What `sparsity_asking.made_for_head` gives.
    """
    if view.fitted and best is None:
        return "The patterns of this head are not fitted yet."
    if view.fitted and made is None:
        kind = view.fitted.replace("_", " ")
        return (
            f"No {kind} within {view.budget} % of the pairs fits this head. Choose another pattern."
        )
    if not view.fitted and view.pattern == "matrix" and not view.matrix:
        return "Upload a matrix of booleans, and it is a pattern like the others."
    return ""


def mask_facts(
    mask: Answer, layers: Sequence[Answer], candidate: Answer | None = None
) -> list[tuple[str, str, str]]:
    """What a pattern keeps at the mask's length: (caption, value, the long form).

    Args:
        mask: The header of the answer to `sparsity_mask`.
        layers: Of the capture's summary, whose sizes turn pairs into work; empty for none.
        candidate: Of the question `sparsity_fitted`, where the mask is one head's; then `layers` is
            its layer, of that head alone.
    """
    length, pairs = mask["length"], mask["pairs"]
    of = mask["causal_pairs"] if mask["within_causal"] else length**2
    about = "" if mask["exact"] else "about "
    counted = "" if mask["exact"] else f"; estimated from {count(mask['counted'])} of the queries"
    blocks = mask["partial"] + mask["full"]
    everything = blocks + mask["skipped"]
    found = [
        (
            "pairs kept",
            f"{about}{share(pairs / of)}",
            f"{count(pairs)} of {count(of)} query and key pairs{counted}",
        ),
        (
            f"blocks of {mask['block']} skipped",
            share(mask["skipped"] / everything),
            f"{count(mask['skipped'])} of {count(everything)}; {count(mask['partial'])} of those "
            f"visited are divided, {count(mask['full'])} whole",
        ),
        (
            "keys of the last query",
            count(mask["last"]),
            "what generating the next token reads of the cache",
        ),
    ]
    if candidate is not None:
        found += [
            ("mass kept", share(candidate["mass"]), "of this head's attention"),
            (
                "output error",
                f"{candidate['error']:.3g}",
                "of this head, relative to dense attention",
            ),
        ]
    whose = "all layers" if candidate is None else "this head"
    return found + (_work(mask, layers, of, whose) if layers else [])


def _work(
    mask: Answer, layers: Sequence[Answer], of: int, whose: str
) -> list[tuple[str, str, str]]:
    # q·k and the weighted sum of values: a multiply and an add each, for every dimension.
    a_pair = sum(4 * layer["heads"] * layer["head_dim"] for layer in layers)
    score = max(layer["heads"] for layer in layers) * 4
    pairs = mask["pairs"]
    return [
        (
            "attention FLOP",
            f"{flop(a_pair * pairs)} of {flop(a_pair * of)}",
            f"4 · heads · head dim · pairs, {whose}, one sequence",
        ),
        (
            "scores of a layer" if whose == "all layers" else "scores of the head",
            f"{nbytes(score * pairs)} of {nbytes(score * of)}",
            "heads · pairs · 4 bytes, what eager attention would hold; flash kernels hold none",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A pattern on one head.

    Attributes:
        title: Of the pattern.
        thumbnail: Its mask, kinds by rows of cells.
        kept: Share of the pairs.
        mass: Share of the head's mass.
        error: Relative, of the head's output.
        all_heads: Mean mass of every head; None of a pattern that was made for this one.
        key: Its family; empty for one that was made for this head.
        fitted: Which of `views.sparsity.FITTED` it is; empty for a family at its numbers.
    """

    title: str
    thumbnail: Sequence[Sequence[int]]
    kept: float
    mass: float
    error: float
    all_heads: float | None = None
    key: str = ""
    fitted: str = ""

    @property
    def words(self) -> str:
        """What it does, in a sentence."""
        return (
            f"keeps {share(self.kept)} of the pairs and {share(self.mass)} of the mass; "
            f"relative output error {self.error:.3g}"
        )


def rows_of(
    effects: Sequence[Answer], fitted: Sequence[Answer], layer: int, head: int
) -> list[Row]:
    """Every pattern on one head, those made for it first.

    Args:
        effects: Of the job `sparsity_effects`; those that were refused are left out.
        fitted: Candidates of the question `sparsity_fitted`.
        layer: Place of the layer.
        head: The head.
    """
    made = [
        Row(
            title=f"{'fitted' if each['fitted'] else 'at the budget'}: {each['title']}",
            fitted=kind_of(each),
            **{name: each[name] for name in ("thumbnail", "kept", "mass", "error")},
        )
        for each in fitted
    ]
    return made + [
        Row(
            title=each["title"],
            thumbnail=each["thumbnail"],
            kept=each["kept"],
            mass=each["mass"][layer][head],
            error=each["error"][layer][head],
            all_heads=_mean(each["mass"]),
            key=each["asked"]["key"],
        )
        for each in effects
        if "refusal" not in each
    ]


def kind_of(candidate: Answer) -> str:
    """Which of `views.sparsity.FITTED` a candidate of the question `sparsity_fitted` is."""
    return candidate["pattern"]["key"] if candidate["fitted"] else "budget"


def best_of(rows: Sequence[Row], budget: float) -> int | None:
    """Which row keeps most mass within a budget, a share of the pairs; None where none is within."""
    within = [at for at, row in enumerate(rows) if row.kept <= budget]
    return max(within, key=lambda at: rows[at].mass, default=None)


def best_at(effects: Sequence[Answer], budget: float, layer: int, head: int) -> int | None:
    """Which of the patterns tried keeps most of a head's mass within a budget; see `best_of`."""
    return best_of(rows_of(effects, (), layer, head), budget)


def _mean(values: Sequence[Sequence[float | None]]) -> float:
    known = [value for line in values for value in line if value is not None]
    return sum(known) / len(known)


def run_verdict(run: Answer) -> str:
    """What a run did to the model's loss, in a line."""
    before, after = run["loss"]
    change = after - before
    moved = (
        "did not move"
        if abs(change) < 5e-4
        else f"{'rose' if change > 0 else 'fell'} by {abs(change):.3f}"
    )
    return (
        f"{run['title']}: the loss {moved}, from {before:.3f} to {after:.3f} nats a "
        f"{'token' if run['hidden'] is None else 'hidden token'} "
        f"(perplexity {exp(before):.3g} to {exp(after):.3g})."
    )


def run_facts(run: Answer) -> list[tuple[str, str]]:
    """What else a run did, by name."""
    found = [
        (
            "KL, next token" if run["hidden"] is None else "KL, that token",
            f"{run['kl']:.3g} nats",
        ),
        ("KL, mean of the prompt", f"{run['mean_kl']:.3g} nats"),
        ("positions judged", count(run["scored"])),
    ]
    if run["same_tokens"] is not None:
        found.append(("tokens alike before they part", count(run["same_tokens"])))
    return found


def judged_token(run: Answer) -> tuple[str, str, str]:
    """Which token a run's probabilities are of: a heading, what stands beside it, and both in a title."""
    if run["hidden"] is None:
        return "The next token", "", "the next token"
    position, text = run["hidden"]
    where = f"“{text}”, hidden at {count(position)}"
    return "Moved most", where, f"the token that moved most, {where}"


def no_text(run: Answer) -> str:
    """Why a run has no text to show."""
    if run["hidden"] is None:
        return "No text was asked for."
    return (
        "An encoder generates no text. Each token of the prompt was hidden once, a seventh of them at a time, "
        "and the loss is of what the model guesses in its place."
    )


def run_rows(run: Answer) -> list[tuple[str, str, str, str]]:
    """What a run takes of attention: name, as the model is, so, and what is left."""
    writers = {
        "pairs": ("visible pairs", count),
        "blocks": ("blocks visited", count),
        "flops": ("attention FLOP", flop),
        "workspace_bytes": ("workspace", nbytes),
    }
    rows = []
    for name, (title, write) in writers.items():
        before, after = run[name]
        rows.append((title, write(before), write(after), share(after / before) if before else ""))
    return rows + _measured_rows(run["measured"])


def _measured_rows(measured: Answer | None) -> list[tuple[str, str, str, str]]:
    rows = []
    writers = {"seconds": ("time, measured", latency), "nbytes": ("memory, measured", nbytes)}
    for name, (title, write) in writers.items() if measured else ():
        before, after = measured[name] if measured else (None, None)
        if before is None or after is None:
            rows.append((title, "not known here", "", ""))
        else:
            part = share(after / before) if before else ""
            rows.append((title, write(before), write(after), part))
    return rows


def measured_note(run: Answer) -> str:
    """How far the measured figures may be trusted; empty without any."""
    measured = run["measured"]
    if measured is None:
        return "Nothing was measured: tick “Measure” for time and memory."
    said = f"Measured on {measured['device']}, in turns, one prompt; memory beyond the weights."
    unsettled = measured["unsettled"]
    return (
        f"{said} The times are not settled enough to compare: {unsettled}." if unsettled else said
    )


def approximation_rows(found: Sequence[Answer]) -> list[tuple[str, str, str]]:
    """What each approximation errs: name, mean, and the range of the heads or the refusal."""
    rows = []
    for each in found:
        size = f", {each['size']}" if each["size"] else ""
        name = f"{each['name']}{size}"
        if "refusal" in each:
            rows.append((name, "refused", each["refusal"]))
        else:
            mean, least, most = each["error"]
            refused, layers = each["refused"]
            but = f"; {refused} of {layers} layers refuse it" if refused else ""
            rows.append((name, f"{mean:.3g}", f"{least:.3g} to {most:.3g}{but}"))
    return rows


def sweep_note(found: Answer, run: str) -> str:
    """How an approximation's curves were found, or why there are none."""
    if found["refusal"]:
        return f"No curve: {found['refusal']}"
    seeds, tokens = found["over_lengths"][0]["seeds"], count(found["tokens"])
    if run == "linear":
        return (
            f"It has no features to vary, and nothing random. Judged on the first {tokens} tokens."
        )
    unit = {"performer": "random features", "linformer": "rows"}[run]
    drawn = "one seed" if seeds == 1 else f"the mean of {seeds} seeds, and their least and most"
    return (
        f"Lines are {drawn}. Over {unit} it is judged on the first {tokens} tokens; over tokens it has "
        f"{count(found['size'])} {unit}."
    )


def pair_told(shown: Shown) -> Notice:
    """What stands in place of patterns where the model is an encoder-decoder."""
    return Notice(
        message=f"{shown.summary['model']} is an encoder-decoder: patterns are tried on models of one stack.",
        remedy="Choose a decoder or an encoder above; its three kinds of attention are on the page Inspect.",
    )
