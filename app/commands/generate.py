"""`attnscope generate`: a prompt continued on the terminal, with where each token looked and what the cache holds."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attnscope.app.commands.prompt import add_prompt, prompt_of
from attnscope.app.prompts.examples import OPENING
from attnscope.kernels.errors import InvalidCall, ModelError
from attnscope.profiling.units import count, latency, nbytes, share

if TYPE_CHECKING:
    from attnscope.models.generation import Generation, Step
    from attnscope.models.loading import LoadedModel
    from attnscope.models.prompting import Batch

_KEYS = 3


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_prompt(parser)
    parser.add_argument("--model", default="demo", help="demo, copying, a hub id, or a folder")
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument(
        "--chat", action="store_true", help="put the chat template round the prompt"
    )
    parser.add_argument("--tokens", type=int, default=48, help="said at most (default: 48)")
    parser.add_argument("--backend", default="eager", help="how attention runs (default: eager)")
    parser.add_argument("--decode", help="the backend after the prompt (default: the same)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0 takes the likeliest token (default)"
    )
    parser.add_argument("--top-k", type=int, default=0, help="draw from the k likeliest alone")
    parser.add_argument("--top-p", type=float, default=1.0, help="draw from this much probability")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument(
        "--cache", choices=("growing", "reserved"), default="growing", help="the model's cache"
    )
    parser.add_argument(
        "--looks",
        action="store_true",
        help="a line a token: its probability, and what it looked at",
    )
    parser.add_argument("--layer", type=int, help="whose heads --looks means (default: all)")
    parser.add_argument("--json", action="store_true", help="a line of JSON a token, as it is said")
    parser.set_defaults(run=run_generate)


def run_generate(given: argparse.Namespace) -> None:
    """Continues the prompt, and says what the cache holds, beside the calculator's figure.

    Raises:
        AttnscopeError: The prompt, the model or a backend is refused.
    """
    from attnscope.models.generation import generating
    from attnscope.models.loading import load
    from attnscope.models.pairs import begun
    from attnscope.models.phases import Phases
    from attnscope.models.prompting import chat_ids
    from attnscope.models.sampling import Sampling

    named = given.prompt is not None or given.file is not None
    text = prompt_of(given, given.model) if named or given.model != "demo" else OPENING
    sampling = Sampling(
        temperature=given.temperature, top_k=given.top_k, top_p=given.top_p, seed=given.seed
    )
    model = load(given.model, revision=given.revision, device=given.device, dtype=given.dtype)
    ids = chat_ids(model, [text]) if given.chat else None
    batch = begun(model, None if given.chat else text, input_ids=ids)
    with generating(
        model,
        batch,
        new_tokens=given.tokens,
        backend=Phases(prefill=given.backend, decode=given.decode or given.backend),
        sampling=sampling,
        cache=given.cache,
    ) as found:
        if not (given.json or given.looks) and batch.source is None:
            _say(text)
        try:
            for step in found:
                _tell(given, model, found, step)
        except KeyboardInterrupt:
            pass  # What was said is kept, and told.
    if not given.json:
        _sum_up(given, model, batch, found)


def _tell(
    given: argparse.Namespace, model: "LoadedModel", found: "Generation", step: "Step"
) -> None:
    """Writes a token, as it was asked for."""
    if given.json:
        _say(json.dumps(_data(given, model, found, step)) + "\n")
    elif given.looks:
        looked = ", ".join(
            f"{_quoted(token)} at {place} {share(weight)}"
            for token, place, weight in _looks(given, model, found, step)
        )
        told = f"{step.number + 1:>4}  {_quoted(step.text):<16} {share(step.probability):>8}"
        _say(f"{told}  looked at {looked}\n")
    elif not step.is_end:
        _say(step.text)


def _data(
    given: argparse.Namespace, model: "LoadedModel", found: "Generation", step: "Step"
) -> dict[str, Any]:
    data = asdict(step)
    if given.looks:
        names = ("token", "position", "weight")
        looks = _looks(given, model, found, step)
        data["looks"] = [dict(zip(names, one, strict=True)) for one in looks]
    return data


def _looks(
    given: argparse.Namespace, model: "LoadedModel", found: "Generation", step: "Step"
) -> list[tuple[str, int, float]]:
    """The keys that got most of the mean over heads, in the token's own text: token, position, weight."""
    import torch

    from attnscope.models.looks import rows

    layers = [one for one in found.layers if one.attention in ("self", "decoder")]
    if given.layer is not None:
        layers = [one for one in layers if one.layer == given.layer]
    if not layers:
        raise InvalidCall(f"There is no layer {given.layer}.", "Layers are counted from 0.")
    mean_K = torch.cat([rows(layer, step.query) for layer in layers]).mean(0)
    best, at = mean_K.topk(min(_KEYS, len(mean_K)))
    tokens = model.tokens([found.read_ids[place] for place in at.tolist()])
    return list(zip(tokens, at.tolist(), best.tolist(), strict=True))


def _sum_up(
    given: argparse.Namespace, model: "LoadedModel", batch: "Batch", found: "Generation"
) -> None:
    if not found.steps:
        return
    steps, prompt = found.steps, len(found.prompt_ids)
    later = [step.seconds for step in steps[1:]] or [steps[0].seconds]
    pace = f"{latency(sum(later) / len(later))} a token, recording included"
    several = f"{count(len(steps))} token{'s' * (len(steps) > 1)} after {count(prompt)}"
    held = sum(steps[-1].cache_bytes)
    _say(f"\n\n{several}, {pace}\n" if not given.looks else f"\n{several}, {pace}\n")
    _say(f"cache: {nbytes(held)} held, {_predicted(given, model, batch, found)}\n")


def _predicted(
    given: argparse.Namespace, model: "LoadedModel", batch: "Batch", found: "Generation"
) -> str:
    from attnscope.models.shape import shape_of
    from attnscope.profiling.cache_growth import generation_cache

    try:
        foretold = generation_cache(
            shape_of(model.model.config),
            prompt=len(found.prompt_ids),
            tokens=given.tokens,
            dtype=str(model.dtype).removeprefix("torch."),
            reserved=given.cache == "reserved",
            source=0 if batch.source is None else batch.source.length,
        )
    except ModelError as error:
        return f"not predicted: {error.message}"
    predicted = sum(foretold[len(found.steps) - 1])
    same = predicted == sum(found.steps[-1].cache_bytes)
    return f"{nbytes(predicted)} predicted{', equal to the byte' if same else ''}"


def _quoted(token: str) -> str:
    return json.dumps(token, ensure_ascii=False)


def _say(text: str) -> None:
    # A console in another encoding shows ? for what it lacks, and is not ended by it.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
