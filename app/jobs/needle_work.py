"""Needles hidden in haystacks and asked for, in the worker; each trial is written down as it comes."""

from typing import TYPE_CHECKING, Any

from attnscope.app.jobs.context import Context
from attnscope.app.jobs.needle_answers import listed
from attnscope.app.jobs.needles import NeedleFolder
from attnscope.app.jobs.patterns_asked import asked as pattern_asked
from attnscope.app.jobs.work import changed, described, models, wanted
from attnscope.models.needle import Grid, Outcome, chance, check_model, run_grid
from attnscope.models.needle_trials import Haystack, Trial, trial
from attnscope.profiling.json_data import to_data
from attnscope.profiling.machine import machine_of
from attnscope.profiling.record import now

if TYPE_CHECKING:
    from attnscope.kernels.patterns.pattern import Pattern
    from attnscope.models.loading import LoadedModel

Arguments = dict[str, Any]
Told = dict[str, Any]

AROUND = 24
"""Tokens of prose told on either side of a needle, and at the prompt's start."""
MOST_TOLD = 4096
"""Tokens of a prompt whose whole text is told, so that Inspect can open it."""
_LOADED = 0.05  # of the whole


def run(arguments: Arguments, context: Context) -> Told:
    """Run the trials of a grid that are not done yet.

    Args:
        arguments: run (the id of its folder); source, revision, device, dtype as for `load`; task, lengths, depths,
            seeds; text (the haystack; empty for the generated prose); backend; pattern (key, causal, parameters)
            or None.
        context: Asked between any two layers whether it was cancelled.

    Returns:
        The run's id.
    """
    folder = NeedleFolder(context.settings.needles_folder, arguments["run"])
    grid = grid_of(arguments)
    pattern = None
    if arguments["pattern"]:
        pattern = pattern_asked(arguments["pattern"], context.settings)
    context.progress(0.0, "Opening the model")
    loading = context.part(0.0, _LOADED, "Loading the model")
    with models(context).borrow(**wanted(arguments, context), progress=loading) as model:
        check_model(model)
        haystack = Haystack(model, arguments["text"] or None)
        folder.begin(arguments, _facts(haystack, grid, pattern))
        run_grid(
            model,
            grid,
            haystack=haystack,
            backend=arguments["backend"],
            pattern=pattern,
            done=folder.trials().keys(),
            on_outcome=lambda outcome: folder.add(told(model, outcome)),
            progress=context.part(
                _LOADED, 1.0, "Looking for the needle", total=len(grid.places), unit="trials"
            ),
        )
    return {"run": arguments["run"]}


def grid_of(arguments: Arguments) -> Grid:
    """The grid that a job's arguments ask for."""
    return Grid(
        task=arguments["task"],
        lengths=tuple(arguments["lengths"]),
        depths=tuple(arguments["depths"]),
        seeds=int(arguments["seeds"]),
    )


def told(model: "LoadedModel", outcome: Outcome) -> Told:
    """An outcome as JSON.

    Returns:
        length, depth, seed; exact, log_probability, rank, seconds; expected and said, the answers' texts; excerpt, see
        `excerpt`; text, the whole prompt where it is short, else None, and same_tokens, whether that text alone gives
        the prompt's tokens; attention, as last, answer (by part, layer and head) and copied (by layer and head).
    """
    asked = outcome.trial
    # The tokenizer puts its own mark there again.
    ids = [one for one in asked.ids if one not in model.special]
    text = "".join(model.tokens(ids)) if asked.length <= MOST_TOLD else None
    again = None if text is None else tuple(model.tokenizer(text)["input_ids"])  # pyright: ignore[reportArgumentType]
    read = outcome.attention
    return {
        "length": asked.length,
        "depth": asked.depth,
        "seed": asked.seed,
        "exact": outcome.exact,
        "log_probability": outcome.log_probability,
        "rank": outcome.rank,
        "seconds": outcome.seconds,
        "expected": "".join(model.tokens(asked.answer)),
        "said": "".join(model.tokens(outcome.said)),
        "excerpt": excerpt(model, asked),
        "text": text,
        "same_tokens": again == asked.ids,
        "attention": None
        if read is None
        else {
            "last": listed(read.last_PLH),
            "answer": listed(read.answer_PLH),
            "copied": listed(read.copied_LH),
        },
    }


def excerpt(model: "LoadedModel", asked: Trial) -> list[list[str]]:
    """A prompt with most of its prose left out: (kind, text), of prose, needle, value, question and gap."""
    needle, value, question = asked.needle, asked.value, asked.question
    parts = [
        *_shortened(range(needle.start)),
        ("needle", range(needle.start, value.start)),
        ("value", value),
        ("needle", range(value.stop, needle.stop)),
        *_shortened(range(needle.stop, question.start)),
        ("question", question),
    ]
    return [
        [kind, f"{len(part):,} tokens" if kind == "gap" else "".join(model.tokens(ids))]
        for kind, part in parts
        if (ids := asked.ids[part.start : part.stop])
    ]


def _shortened(part: range) -> list[tuple[str, range]]:
    if len(part) <= 3 * AROUND:
        return [("prose", part)]
    return [
        ("prose", part[:AROUND]),
        ("gap", part[AROUND:-AROUND]),
        ("prose", part[-AROUND:]),
    ]


def _facts(haystack: Haystack, grid: Grid, pattern: "Pattern | None") -> Told:
    """The model as `load` describes it, when its files changed, its machine, the pattern's title, what chance gets."""
    model = haystack.model
    first = trial(haystack, grid.task, length=max(grid.lengths), depth=grid.depths[0], seed=0)
    return {
        "model": described(model),
        "changed": changed(model.source),
        "machine": to_data(machine_of(model.device)),
        "created": now(),
        "pattern": "" if pattern is None else pattern.title,
        "chance": to_data(chance(first)),
        "answer_tokens": len(first.answer),
        "needle_tokens": len(first.needle),
    }
