"""`attnscope needle`: up to which length, and at which depths, a model finds what it was told, and which heads look."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.progress import progress
from attnscope.app.commands.table import say_table
from attnscope.app.needles_offered import PATTERNS, TASKS, Setting, read_depths, read_lengths
from attnscope.app.prompts.uploads import uploaded
from attnscope.app.words import needle as words
from attnscope.kernels.errors import InvalidCall, JobCancelled
from attnscope.profiling.units import count

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel
    from attnscope.models.needle import Grid, Outcome

_STDOUT = Path("-")
_TOP = 5


def add_needle(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--model", default="demo", help="demo, a hub id, or a folder")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--task", default="repetition", choices=tuple(TASKS))
    parser.add_argument(
        "--lengths", default="64,128,256,512", help="tokens of the prompt, comma separated"
    )
    parser.add_argument("--depths", default="0,25,50,75,100", help="percent, comma separated")
    parser.add_argument("--seeds", type=int, default=4, help="trials of a cell (default: 4)")
    parser.add_argument(
        "--haystack", type=Path, help="a file of prose (default: the prose that ships)"
    )
    parser.add_argument("--backend", default="tiled", help="how attention runs (default: tiled)")
    parser.add_argument(
        "--pattern",
        choices=[each for each in PATTERNS if each],
        help="what every head sees at most",
    )
    parser.add_argument("--window", type=int, default=64, help="tokens of the pattern's window")
    parser.add_argument("--sinks", type=int, default=4, help="first tokens that all see")
    parser.add_argument(
        "--score", default="exact", choices=tuple(words.SCORES), help="what the table shows"
    )
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=_STDOUT,
        help="write every trial into this file; in place of the table where none is named",
    )
    parser.set_defaults(run=run_needle)


def run_needle(given: argparse.Namespace) -> None:
    """Runs the grid, prints the table and the heads that look there, and writes the file.

    Raises:
        AttnscopeError: The model, the grid or the haystack cannot be used as asked; says why.
    """
    from attnscope.models.loading import load
    from attnscope.models.needle import Grid

    grid = Grid(
        task=given.task,
        lengths=read_lengths(given.lengths),
        depths=read_depths(given.depths),
        seeds=given.seeds,
    )
    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    outcomes = _run(given, model, grid)
    if given.json != _STDOUT:
        _say(given, model, grid, outcomes)
    if given.json is not None:
        _write(given, model, outcomes)


def _run(given: argparse.Namespace, model: "LoadedModel", grid: "Grid") -> "list[Outcome]":
    from attnscope.kernels.patterns.catalogue import pattern
    from attnscope.models.needle import run_grid
    from attnscope.models.needle_trials import Haystack

    text = None
    if given.haystack is not None:
        read = uploaded(given.haystack.read_bytes(), given.haystack.name)
        text = "\n\n".join(each.text for each in read)
    asked = _setting(given).described
    outcomes: list[Outcome] = []
    try:
        with progress(model.title) as report:
            run_grid(
                model,
                grid,
                haystack=Haystack(model, text),
                backend=given.backend,
                pattern=None
                if asked is None
                else pattern(asked["key"], causal=True, **asked["parameters"]),
                on_outcome=outcomes.append,
                progress=report,
            )
    except KeyboardInterrupt:
        raise JobCancelled("Interrupted.") from None
    return outcomes


def _setting(given: argparse.Namespace) -> Setting:
    if given.window < 1 or given.sinks < 0:
        raise InvalidCall(
            f"a window is 1 token or more and sinks are 0 or more, got {given.window} and {given.sinks}."
        )
    return Setting(
        backend=given.backend,
        pattern=given.pattern or "",
        window=given.window,
        sinks=given.sinks,
    )


def _say(
    given: argparse.Namespace, model: "LoadedModel", grid: "Grid", outcomes: "Sequence[Outcome]"
) -> None:
    from attnscope.app.jobs.needle_answers import cells_of
    from attnscope.models.needle import chance
    from attnscope.models.needle_attention import mean_attention, ranked_heads
    from attnscope.profiling.json_data import to_data

    cells = cells_of(list(map(_told, outcomes)))
    by_place = {(each["length"], each["depth"]): each for each in cells}
    rows = [
        [
            f"{depth:g} %",
            *(words.score_text(by_place[length, depth], given.score) for length in grid.lengths),
        ]
        for depth in grid.depths
    ]
    title = f"{model.title}, {_setting(given).title}: {words.SCORES[given.score]}"
    header = ["depth", *(f"{count(length)} tokens" for length in grid.lengths)]
    say_table(title, header, rows, right=range(1, len(header)))
    by_chance = chance(outcomes[0].trial)
    sys.stdout.write(
        f"{' '.join(words.verdict(cells)).strip()}\n"
        f"Without the needle the best guess gets {by_chance.exact:.2g} exact, "
        f"{by_chance.log_probability:.2f} nats a token, a mean rank of {by_chance.rank:.3g}.\n"
    )
    judged = [each for each in outcomes if each.exact] or outcomes
    read = [each.attention for each in judged if each.attention is not None]
    if read:
        heads = [to_data(head) for head in ranked_heads(mean_attention(read))]
        of = f"Heads that look there, over {count(len(read))} trials"
        say_table(
            of,
            ("head", "copied", "mass on the needle"),
            words.head_rows(heads, _TOP),
            right=range(1, 3),
        )


def _told(outcome: "Outcome") -> dict[str, Any]:
    names = ("exact", "log_probability", "rank", "seconds")
    place = {
        "length": outcome.trial.length,
        "depth": outcome.trial.depth,
        "seed": outcome.trial.seed,
    }
    return {**place, **{name: getattr(outcome, name) for name in names}}


def _write(given: argparse.Namespace, model: "LoadedModel", outcomes: "Sequence[Outcome]") -> None:
    from attnscope.app.jobs.needle_work import told
    from attnscope.models.needle import chance
    from attnscope.profiling.asked import model_used
    from attnscope.profiling.json_data import to_data
    from attnscope.profiling.machine import machine_of
    from attnscope.profiling.record import now

    found = {
        "created": now(),
        "model": to_data(model_used(model)),
        "dtype": str(model.dtype).removeprefix("torch."),
        "machine": to_data(machine_of(model.device)),
        "task": given.task,
        "backend": given.backend,
        "pattern": _setting(given).described,
        "chance": to_data(chance(outcomes[0].trial)),
        "trials": [told(model, each) for each in outcomes],
    }
    text = json.dumps(found, allow_nan=False, indent=1) + "\n"
    if given.json == _STDOUT:
        sys.stdout.write(text)
        return
    given.json.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {given.json}\n")
