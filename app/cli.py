"""The command line, `attnscope`: each command a module of `commands/`; serve, inspect and models here."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.ablate import add_ablate
from attnscope.app.commands.advise import add_advise
from attnscope.app.commands.backends import add_backends
from attnscope.app.commands.calculate import add_calculate
from attnscope.app.commands.data import add_data
from attnscope.app.commands.generate import add_generate
from attnscope.app.commands.needle import add_needle
from attnscope.app.commands.profile import add_profile
from attnscope.app.commands.prompt import add_prompt, read_by
from attnscope.app.commands.rollout import add_rollout
from attnscope.app.commands.runs import add_runs
from attnscope.app.kept.pictures import read_picture
from attnscope.app.prompts.examples import shipped_picture
from attnscope.kernels.errors import AttnscopeError, InvalidCall
from attnscope.models.shipped import SHIPPED
from attnscope.profiling.units import count, nbytes, seconds

if TYPE_CHECKING:
    from attnscope.models.captured import Capture

_MOST_CELLS = 512
_TABLE = ("induction", "previous_token", "sink_mass", "entropy_nats", "mean_distance")
_FORMATS = ("html", "png", "svg", "pdf", "csv", "parquet", "json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: As typed after `attnscope`; those of the process when None.

    Returns:
        0, or 2 after a refusal, told in one sentence on standard error.
    """
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except AttnscopeError as error:
        sys.stderr.write(f"attnscope: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"attnscope: {error.strerror}: {error.filename}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnscope",
        description="The microscope and test bench for attention in transformer models.",
    )
    commands = parser.add_subparsers(
        required=True,
        metavar="COMMAND",
    )
    serve = commands.add_parser("serve", help="open the dashboard")
    serve.add_argument("--address", help="where to listen (default: this machine only)")
    serve.add_argument("--port", type=int, help="TCP port (default: 8501)")
    serve.set_defaults(run=_serve)
    _add_inspect(commands.add_parser("inspect", help="print what every head does with a prompt"))
    add_ablate(commands.add_parser("ablate", help="say which heads a model needs for a text"))
    add_rollout(
        commands.add_parser(
            "rollout", help="say from which tokens a token came, through all layers"
        )
    )
    add_generate(
        commands.add_parser("generate", help="continue a prompt, and say what it looked at")
    )
    add_needle(
        commands.add_parser("needle", help="say up to which length and depth a needle is found")
    )
    add_backends(commands.add_parser("backends", help="hold every backend against float64"))
    add_profile(commands.add_parser("profile", help="measure latency and memory of backends"))
    add_calculate(commands.add_parser("calculate", help="say what a model will take and cost"))
    add_advise(commands.add_parser("advise", help="say which way of attending to choose"))
    add_runs(
        commands.add_parser("runs", help="what was measured before: list, show, export, import")
    )
    add_data(commands.add_parser("data", help="say what the data folder holds, and tidy it"))
    models = commands.add_parser("models", help="list the models that can be loaded here")
    models.add_argument(
        "--check",
        metavar="MODEL",
        help="load this one and say whether its attention can be swapped",
    )
    models.set_defaults(run=_models)
    return parser


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add_prompt(parser)
    parser.add_argument(
        "--model", default="demo", help="demo, copying, picture-copying, a hub id, or a folder"
    )
    parser.add_argument(
        "--target", help="what an encoder-decoder's decoder reads (default: what it says itself)"
    )
    parser.add_argument(
        "--attention",
        choices=("cross", "decoder", "encoder"),
        help="which of an encoder-decoder's (default: cross)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--backend", default="eager", help="how attention runs (default: eager)")
    parser.add_argument("--layer", type=int, help="only this layer")
    parser.add_argument("--head", type=int, default=0, help="the head whose map is written")
    parser.add_argument("--out", type=Path, help="write map and diagnostics into this folder")
    parser.add_argument(
        "--format",
        action="append",
        choices=_FORMATS,
        help="of the files in --out; may be repeated (default: html and csv)",
    )
    parser.set_defaults(run=_inspect)


def _serve(given: argparse.Namespace) -> None:
    from attnscope.app.server import serve

    serve(address=given.address, port=given.port)


def _inspect(given: argparse.Namespace) -> None:
    from attnscope.models.heads import diagnose_capture

    captured = _captured(given)
    _check_head(captured, given.head)
    found = diagnose_capture(captured)
    _say(
        f"{captured.title}, {captured.backend} on {captured.device} in {captured.dtype}: "
        f"{_read(captured)} in {seconds(captured.seconds)}, "
        f"capture {nbytes(captured.nbytes)}"
    )
    _say_table(captured, found)
    if given.out is not None:
        _write(captured, found, given)


def _captured(given: argparse.Namespace) -> "Capture":
    """The layers that were asked for, of one kind of attention."""
    from attnscope.models.capture import capture
    from attnscope.models.loading import load

    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    is_pair = model.kind == "encoder-decoder"
    if given.attention is not None and not is_pair:
        raise InvalidCall(
            f"{model.title} is no encoder-decoder: it has one kind of attention.",
            "Leave --attention out.",
        )
    layers = None if given.layer is None or is_pair else (given.layer,)
    captured = capture(
        model, **read_by(model, given), target=given.target, backend=given.backend, layers=layers
    )
    captured = captured.of(given.attention or captured.attentions[0])
    return captured if given.layer is None else captured.only(given.layer)


def _read(captured: "Capture") -> str:
    """How many tokens were read, or places of a picture."""
    places = count(len(captured.tokens[0]))
    if captured.picture:
        return f"{places} places of {captured.texts[0]}"
    tokens = f"{places} tokens"
    if captured.encoded is None:
        return tokens
    return f"{tokens} of a target on {count(len(captured.encoded.tokens[0]))} places of its source"


def _check_head(captured: "Capture", head: int) -> None:
    heads = captured.layers[0].q_BHQD.shape[1]
    if not 0 <= head < heads:
        raise InvalidCall(f"There is no head {head}.", f"This model has heads 0 to {heads - 1}.")


def _say(line: str = "") -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))


def _say_table(captured: "Capture", found: dict[str, Any]) -> None:
    from attnscope.kernels.diagnostics import DIAGNOSTICS

    titles = {words.key: words.title for words in DIAGNOSTICS}
    keys = [key for key in _TABLE if key in found]
    columns = [titles[key] for key in keys]
    _say()
    _say("layer  head  " + "  ".join(f"{title:>14}" for title in columns))
    for row, layer in enumerate(captured.layers):
        for head in range(layer.q_BHQD.shape[1]):
            numbers = (float(found[key][row, head]) for key in keys)
            cells = "  ".join(f"{number:>14.3g}" for number in numbers)
            _say(f"{layer.layer:>5}  {head:>4}  {cells}")


def _write(captured: "Capture", found: dict[str, Any], given: argparse.Namespace) -> None:
    from attnscope.app.files.charts import export
    from attnscope.app.files.images import ImageServer
    from attnscope.app.jobs.capture_summary import describe
    from attnscope.kernels.diagnostics import DIAGNOSTICS

    layer = captured.layers[0].layer
    values = captured.pooled(layer, given.head, _MOST_CELLS, _MOST_CELLS, reduce="max")
    layer_view = captured.view(layer)
    view = {
        "layer": layer,
        "head": given.head,
        "pooling": "max",
        "q0": 0,
        "q1": layer_view.q_HQD.shape[1],
        "k0": 0,
        "k1": layer_view.k_GKD.shape[1],
        "titles": {words.key: words.title for words in DIAGNOSTICS},
        "units": {words.key: words.unit for words in DIAGNOSTICS},
    }
    summary = describe("", captured)
    given.out.mkdir(parents=True, exist_ok=True)
    _say()
    with ImageServer() as images:
        for what, arrays in (("map", {"values": values}), ("diagnostics", found)):
            for form in given.format or ("html", "csv"):
                data, _, name = export(summary, what, form, arrays, view, images=images)
                path = given.out / name
                path.write_bytes(data)
                _say(f"wrote {path}")


def _models(given: argparse.Namespace) -> None:
    if given.check is not None:
        _check(given.check)
        return
    from attnscope.models.cached import cached_models

    for name in SHIPPED:
        _say(f"{name:<40} shipped with the dashboard")
    for model in cached_models():
        state = "" if model.has_safetensors else "  no safetensors: cannot be loaded"
        _say(
            f"{model.source:<40} {model.architecture:<12} {nbytes(model.nbytes):>10}  "
            f"{model.revision[:10]}{state}"
        )


def _check(source: str) -> None:
    from attnscope.models.capture import capture
    from attnscope.models.loading import load

    model = load(source)
    least: dict[str, Any] = {"input_ids": [0, 1]}
    if model.reads_pictures:
        least = {"picture": read_picture(shipped_picture().read_bytes())}
    captured = capture(model, **least)
    heads = captured.layers[0].q_BHQD.shape[1]
    _say(
        f"{model.title}: {model.kind}, {count(len(captured.layers))} layers of {count(heads)} heads, "
        f"{nbytes(model.nbytes)} in {captured.dtype}; its attention can be swapped."
    )


if __name__ == "__main__":
    sys.exit(main())
