"""`attnscope ablate`: which heads a model needs for a text, and what it loses without some of them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.prompt import add_prompt, prompt_of
from attnscope.app.commands.table import say_table
from attnscope.app.heads import read_heads
from attnscope.app.prompts.uploads import uploaded
from attnscope.app.words.ablation import (
    FIRST_RULE,
    WAYS,
    ablated_rows,
    ablated_verdict,
    swept_verdict,
)
from attnscope.profiling.units import count

if TYPE_CHECKING:
    from attnscope.models.loading import LoadedModel

_MOST_TOKENS = 10

Answer = dict[str, Any]


def add_ablate(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_prompt(parser)
    parser.add_argument("--model", default="demo", help="demo, a hub id, or a folder")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--backend", default="eager", help="how attention runs (default: eager)")
    parser.add_argument("--heads", help="layer and head of those to ablate together: 2.5,3.1")
    parser.add_argument(
        "--way", choices=WAYS, default="zero", help="what a head puts out instead (default: zero)"
    )
    parser.add_argument(
        "--rule",
        help=f"with --way restrict: it sees key j from query i where (default: {FIRST_RULE})",
    )
    parser.add_argument(
        "--reference", type=Path, help="with --way mean: a text file that the mean is over"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="ablate every head; so it is without --heads"
    )
    parser.add_argument(
        "--rise", type=float, default=0.1, help="nats the loss may rise by (default: 0.1)"
    )
    parser.add_argument("--json", type=Path, help="write everything that was found into this file")
    parser.set_defaults(run=run_ablate)


def run_ablate(given: argparse.Namespace) -> None:
    """Ablates, prints what came of it, and writes the file.

    Raises:
        AttnscopeError: What was asked cannot be done; says why.
    """
    from attnscope.models.loading import load

    text = prompt_of(given, given.model)
    heads = read_heads(given.heads or "")
    asked = _asked(given)
    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    found: Answer = {
        "model": model.title,
        "backend": given.backend,
        "prompt": text,
        "way": given.way,
    }
    if given.sweep or not heads:
        found["sweep"] = _sweep(model, text, asked, given.rise)
    if heads:
        found["ablation"] = _ablate(model, text, heads, asked)
    if given.json is not None:
        given.json.write_text(
            json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        _say(f"wrote {given.json}")


def _asked(given: argparse.Namespace) -> Answer:
    """What is done to heads, as `ablate` and `sweep` take it.

    Raises:
        InvalidCall: A rule or a reference for another way.
    """
    from attnscope.kernels.errors import InvalidCall
    from attnscope.kernels.patterns.catalogue import pattern

    for name, way in (("rule", "restrict"), ("reference", "mean")):
        if getattr(given, name) is not None and given.way != way:
            raise InvalidCall(f"--{name} belongs to --way {way}, and the way is {given.way}.")
    rule = pattern("rule", text=given.rule or FIRST_RULE) if given.way == "restrict" else None
    reference = given.reference
    return {
        "way": given.way,
        "pattern": rule,
        "backend": given.backend,
        "reference": None
        if reference is None
        else uploaded(reference.read_bytes(), reference.name)[0].text,
    }


def _sweep(model: "LoadedModel", text: str, asked: Answer, rise: float) -> Answer:
    from attnscope.app.jobs.ablation_work import swept
    from attnscope.models.ablation_sweep import sweep

    found = swept(sweep(model, text, **asked, progress=_progress))
    heads = 1 + max(head for _, head, *_ in found["heads"])
    rises = {(layer, head): loss - found["loss"] for layer, head, loss, _ in found["heads"]}
    rows = [
        [
            str(layer),
            *(
                f"{rises[layer, head]:+.3f}" if (layer, head) in rises else ""
                for head in range(heads)
            ),
            f"{loss - found['loss']:+.3f}",
        ]
        for layer, (loss, _) in enumerate(found["layers"])
    ]
    header = ["layer", *(f"head {head}" for head in range(heads)), "all"]
    title = f"{model.title}: nats a token by which the loss rises, {count(found['scored'])} tokens"
    say_table(title, header, rows, right=range(len(header)))
    _say(swept_verdict(found, rise))
    return found


def _ablate(
    model: "LoadedModel", text: str, heads: Sequence[tuple[int, int]], asked: Answer
) -> Answer:
    from attnscope.app.jobs.ablation_work import described
    from attnscope.models.interventions import Intervention, ablate
    from attnscope.models.prompting import batch_of

    done = Intervention(heads=tuple(heads), way=asked["way"], pattern=asked["pattern"])
    besides = {name: asked[name] for name in ("backend", "reference")}
    found = described(ablate(model, text, intervention=done, **besides, progress=_progress))
    tokens = model.tokens(batch_of(model, text, None, None).ids[0])
    rule = "" if done.pattern is None else done.pattern.parameters["text"]
    _say(ablated_verdict(found, heads, asked["way"], rule))
    title = f"Over {count(len(found['scored']))} tokens"
    say_table(title, ("", "as it is", "without"), ablated_rows(found), right=(1, 2))
    moved = sorted(
        zip(found["scored"], *found["losses"], strict=True),
        key=lambda each: -abs(each[2] - each[1]),
    )
    rows = [
        [str(at), repr(tokens[at]), f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}"]
        for at, before, after in moved[:_MOST_TOKENS]
    ]
    header = ("position", "token", "as it is", "without", "change")
    say_table("Tokens whose loss moved most, nats", header, rows, right=(0, 2, 3, 4))
    if not found["hidden"]:
        shares = [
            [repr(text), f"{100 * before:.3g} %", f"{100 * after:.3g} %", f"{end - start:+.3g}"]
            for text, before, after, start, end in found["next"][-1]
        ]
        say_table(
            "The next token", ("token", "as it is", "without", "logit"), shares, right=(1, 2, 3)
        )
    return {"heads": [list(head) for head in heads], "rule": rule, **found}


def _progress(share: float, words: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{100 * share:.0f} % {words}" if share < 1 else "\r\x1b[K")


def _say(line: str) -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
