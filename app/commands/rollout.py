"""`attnscope rollout`: from which tokens a token's representation came, through all layers; with `--flow`, the flow."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.prompt import add_prompt, read_by
from attnscope.app.commands.table import say_table
from attnscope.app.prompts.uploads import shortened
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count, share

if TYPE_CHECKING:
    from attnscope.models.captured import Capture
    from attnscope.models.rollout import Mixture, Rollout

_MOST_ROWS = 20
_LEAST_ELSEWHERE = 5e-4  # less is rounding


def add_rollout(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_prompt(parser)
    parser.add_argument("--model", default="demo", help="demo, copying, a hub id, or a folder")
    parser.add_argument("--target", help="what an encoder-decoder's decoder reads")
    parser.add_argument(
        "--stack",
        choices=("decoder", "encoder"),
        help="which of an encoder-decoder's (default: decoder)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--backend", default="eager", help="how attention runs (default: eager)")
    parser.add_argument(
        "--token",
        type=int,
        default=-1,
        help="its position, from the end where negative (default: -1)",
    )
    parser.add_argument(
        "--to",
        action="store_true",
        help="into which tokens it went, in place of where it came from",
    )
    parser.add_argument(
        "--attention",
        type=float,
        default=0.5,
        help="attention's part of a layer's output; the rest is residual (default: 0.5)",
    )
    parser.add_argument("--first", type=int, help="the lowest layer (default: the model's)")
    parser.add_argument("--last", type=int, help="the highest layer (default: the model's)")
    parser.add_argument("--by-value", action="store_true", help="mix heads by the norms of values")
    parser.add_argument(
        "--flow", action="store_true", help="find the maximum flow as well, among the window"
    )
    parser.add_argument(
        "--window", type=int, help="tokens of the flow, up to that one (default: as many as can be)"
    )
    parser.add_argument(
        "--json", type=Path, help="write every share, layer by layer, into this file"
    )
    parser.set_defaults(run=run_rollout)


def run_rollout(given: argparse.Namespace) -> None:
    """Rolls one token out, prints its largest shares, and writes the file.

    Raises:
        AttnscopeError: Something asked for cannot be; says why.
    """
    from attnscope.models.rollout import Mixture, rollout

    if given.to and given.flow:
        raise InvalidCall("Flow is found to a token alone.", "Leave --to or --flow out.")
    captured = _captured(given)
    how = Mixture(
        attention=given.attention, first=given.first, last=given.last, by_value=given.by_value
    )
    found = rollout(captured, given.token, direction="to" if given.to else "from", how=how)
    last = max(found.layers)
    raw = replace(how, attention=1.0, first=last, last=last)
    columns = {
        "rollout": found.values_N.tolist(),
        "last layer": rollout(
            captured, found.token, direction=found.direction, how=raw
        ).values_N.tolist(),
    }
    if given.flow:
        columns["flow"] = _flows(captured, found, how, given.window)
    _say(captured, found, columns)
    if given.json is not None:
        _write(given.json, captured, found, how, columns)
        sys.stdout.write(f"wrote {given.json}\n")


def _captured(given: argparse.Namespace) -> "Capture":
    from attnscope.models.capture import capture
    from attnscope.models.loading import load

    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    is_pair = model.kind == "encoder-decoder"
    if given.stack is not None and not is_pair:
        raise InvalidCall(
            f"{model.title} is no encoder-decoder: it is one stack.", "Leave --stack out."
        )
    asked = read_by(model, given)
    captured = capture(model, **asked, target=given.target, backend=given.backend)
    return captured.of(given.stack or "decoder") if is_pair else captured


def _flows(
    captured: "Capture", found: "Rollout", how: "Mixture", window: int | None
) -> list[float | None]:
    """The flow from each token; None outside the window."""
    from attnscope.models.flow import MOST_TOKENS, flow

    asked = MOST_TOKENS if window is None else window
    tokens = range(max(0, found.token + 1 - asked), found.token + 1)
    flows = flow(captured, found.token, tokens=tokens, how=how).values_T.tolist()
    outside = len(found.values_N) - tokens.stop
    return [*(None for _ in range(tokens.start)), *flows, *(None for _ in range(outside))]


def _say(captured: "Capture", found: "Rollout", columns: dict[str, list[float | None]]) -> None:
    tokens = captured.tokens[0]
    order = sorted(range(len(tokens)), key=lambda at: -float(found.values_N[at]))[:_MOST_ROWS]
    rows = [
        (
            str(at),
            _label(tokens[at]),
            *("" if values[at] is None else f"{values[at]:.4f}" for values in columns.values()),
        )
        for at in order
    ]
    about = "where it came from" if found.direction == "from" else "where it went"
    layers = f"layers {min(found.layers)} to {max(found.layers)}"
    title = (
        f"{captured.title}, {layers}: token {found.token} “{_label(tokens[found.token])}”, {about}: "
        f"the {count(len(rows))} largest of {count(len(tokens))} tokens"
    )
    say_table(title, ("position", "token", *columns), rows, right={0, *range(2, 2 + len(columns))})
    elsewhere = found.elsewhere_L
    if elsewhere is not None and elsewhere[-1] >= _LEAST_ELSEWHERE:
        sys.stdout.write(f"{share(float(elsewhere[-1]))} belongs to no token.\n")


def _label(token: str) -> str:
    return shortened(token.replace("\n", "↵"), 24) or "␣"


def _write(
    path: Path,
    captured: "Capture",
    found: "Rollout",
    how: "Mixture",
    columns: dict[str, list[float | None]],
) -> None:
    content: dict[str, Any] = {
        "model": captured.title,
        "source": captured.source,
        "revision": captured.revision,
        "backend": captured.backend,
        "tokens": list(captured.tokens[0]),
        "token": found.token,
        "direction": found.direction,
        "attention": how.attention,
        "by_value": how.by_value,
        "layers": list(found.layers),
        "shares_by_layer": found.values_LN.tolist(),
        "elsewhere_by_layer": None if found.elsewhere_L is None else found.elsewhere_L.tolist(),
        **{name.replace(" ", "_"): values for name, values in columns.items()},
    }
    path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", encoding="utf-8")
