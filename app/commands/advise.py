"""`attnscope advise`: which way of attending to choose, with the numbers behind it."""

import argparse
import json
import sys

from attnscope.app.commands.calculate import memory_bytes
from attnscope.app.commands.table import say_table
from attnscope.app.jobs.advice_answers import THIS_MACHINE, advice
from attnscope.app.jobs.advice_errors import measure_errors
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.prompts.examples import example
from attnscope.app.prompts.uploads import typed
from attnscope.app.settings import Settings
from attnscope.app.words import advice as advice_words
from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.units import count


def add_advise(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments.

    Args:
        parser: Of the command.
    """
    parser.add_argument("--model", default="demo", help="demo, a hub id, a folder or a config.json")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument(
        "--device",
        default=THIS_MACHINE,
        help="a device of the table, such as H200 (default: this machine, measured)",
    )
    parser.add_argument("--length", type=int, default=4096, help="tokens a sequence (default 4096)")
    parser.add_argument("--batch", type=int, default=1, help="sequences (default 1)")
    parser.add_argument(
        "--dtype", help="float32, bfloat16 or float16 (default: bfloat16, float32 on this machine)"
    )
    parser.add_argument("--phase", default="prefill", help="prefill or decode (default prefill)")
    parser.add_argument("--memory", help="what is free of the device's, such as 60GiB")
    parser.add_argument(
        "--tolerated",
        type=float,
        default=0.0,
        help="relative error of attention's output that is tolerated, such as 0.1 (default: none)",
    )
    parser.add_argument(
        "--workload",
        default="document",
        help="document, generation, multimodal or retrieval (default document)",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="load the weights first, and measure what each mechanism changes of its output and loss; kept",
    )
    parser.add_argument(
        "--prompt", help="what it reads for that (default: the first text that ships)"
    )
    parser.add_argument(
        "--all", action="store_true", help="print every candidate, not the best of each family"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=advise)


def advise(given: argparse.Namespace) -> None:
    """Ranks and prints.

    Args:
        given: The parsed arguments.

    Raises:
        AttnscopeError: What was asked for has no answer; says why.
    """
    if not 0 <= given.tolerated <= 1:
        raise InvalidCall(f"A tolerated error is from 0 to 1, got {given.tolerated:g}.")
    settings = Settings.from_environment()
    context = Context(settings=settings, device="auto", resources=Resources())
    here = given.device == THIS_MACHINE
    asked = {
        "model": given.model,
        "revision": given.revision,
        "device": given.device,
        "length": given.length,
        "batch": given.batch,
        "dtype": given.dtype or ("float32" if here else "bfloat16"),
        "phase": given.phase,
        "free_bytes": None if given.memory is None else memory_bytes(given.memory),
        "tolerated": given.tolerated,
        "workload": given.workload,
    }
    if given.measure:
        text = example("").text if given.prompt is None else given.prompt
        measure_errors(asked | {"text": typed(text).text}, context)
    answer = advice(asked, context)
    if given.json:
        _say(json.dumps(answer))
        return
    for line in advice_words.lines(answer):
        _say(line)
    _say()
    shown = answer["ranked"] if given.all else advice_words.leaders(answer)
    title = "Candidates, the best first" + ("" if given.all else ", one a family")
    say_table(title, advice_words.HEADER, advice_words.rows(shown))
    more = len(answer["ranked"]) - len(shown)
    if more:
        _say(f"{count(more)} more of the same families: --all prints them.")


def _say(line: str = "") -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
