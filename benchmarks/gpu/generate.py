"""Whether a model says the same under our kernels: 64 greedy tokens, held to those of eager.

A Llama of random weights in float32, so that nothing is downloaded; queries and keys are enlarged
until the softmax is far from flat. `error` is the largest difference of a logit from eager's, and
`ratio` that error over the one that transformers' SDPA makes.

B batch, T new tokens, V vocabulary.
"""

import gc
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Record
from benchmarks.results import failure

CACHES = ("dynamic", "static")
SHARPER = 2.0
"""What the projections of queries and keys are multiplied by: their scores, by its square."""

_SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
}
_TOY_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}
_LENGTHS, _TOY_LENGTHS = (700, 1000), (7, 12)
_TOKENS, _TOY_TOKENS = 64, 3


def generate(bench: Bench) -> Iterator[Record]:
    """One record a kind of cache: the tokens of SDPA and of our kernels, beside those of eager."""
    if importlib.util.find_spec("transformers") is None:
        yield {"name": "generate", "not_run": "transformers is not installed"}
        return
    model = _model(bench)
    prompts = _prompts(bench)
    for cache in CACHES:
        name = f"{_TOY_TOKENS if bench.toy else _TOKENS} greedy tokens, {cache} cache, float32"
        if bench.seconds_left <= 0:
            yield {"name": name, "not_run": "out of time"}
            continue
        yield {"name": name, **_held_to_eager(bench, model, prompts, cache)}
    del model
    gc.collect()


def _held_to_eager(bench: Bench, model: Any, prompts: Record, cache: str) -> Record:
    # Here and not above: the other sections run where there is no transformers.
    from attnscope.models.phases import Phases
    from attnscope.models.swapping import swapped

    split = Phases(prefill="triton", decode="triton_decode")
    ours = {"triton": "triton", "triton+triton_decode": split}
    tokens_BT, logits_BTV = _said(bench, model, prompts, cache)
    best = logits_BTV.topk(2).values
    lead = float((best[..., 0] - best[..., 1]).min())
    found: dict[str, Record] = {}
    for name in ("sdpa", *ours):
        swap = swapped(model, ours[name]) if name in ours else nullcontext()
        model.set_attn_implementation("eager" if name in ours else name)
        try:
            with swap:
                answer = _said(bench, model, prompts, cache)
        except Exception as error:  # noqa: BLE001 - whatever kept it from answering is its result
            found[name] = {"right": False, "reason": failure(error)}
        else:
            found[name] = _verdict(*answer, tokens_BT, logits_BTV)
    model.set_attn_implementation("eager")
    theirs = found["sdpa"].get("error", 0.0)
    for verdict in found.values():
        if verdict["right"]:
            verdict["ratio"] = verdict["error"] / theirs if theirs else 1.0
    return {"lead": lead, "different_tokens": len(tokens_BT.unique()), "backends": found}


def _verdict(tokens_BT: Tensor, logits_BTV: Tensor, right_BT: Tensor, true_BTV: Tensor) -> Record:
    wrong = (tokens_BT != right_BT).any(0).nonzero()
    if len(wrong):
        return {"right": False, "reason": f"token {int(wrong[0])} is not that of eager"}
    error = float((logits_BTV - true_BTV).abs().max())
    return {"right": True, "reason": None, "error": error, "tokens": tokens_BT.numel()}


def _said(
    bench: Bench, model: Any, prompts: Mapping[str, Any], cache: str
) -> tuple[Tensor, Tensor]:
    """The new tokens, `[B, T]`, and the logits they are the best of, `[B, T, V]`."""
    tokens = _TOY_TOKENS if bench.toy else _TOKENS
    static = {"cache_implementation": "static", "disable_compile": True}
    made = model.generate(
        **prompts,
        max_new_tokens=tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **(static if cache == "static" else {}),
    )
    return made.sequences[:, -tokens:], torch.stack(made.logits, 1)


def _model(bench: Bench) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**_TOY_SIZES if bench.toy else _SIZES)  # pyright: ignore[reportArgumentType]
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with torch.device(bench.device):
        model: Any = LlamaForCausalLM(config).eval().float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weight.mul_(SHARPER)
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


def _prompts(bench: Bench) -> Record:
    """Random tokens, the shorter prompt padded on the left."""
    lengths, sizes = (_TOY_LENGTHS, _TOY_SIZES) if bench.toy else (_LENGTHS, _SIZES)
    generator = torch.Generator().manual_seed(0)
    longest = max(lengths)
    ids_BN = torch.randint(5, sizes["vocab_size"], (len(lengths), longest), generator=generator)
    kept_BN = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    given = {"input_ids": ids_BN * kept_BN, "attention_mask": kept_BN.long()}
    return {name: tensor.to(bench.device) for name, tensor in given.items()}
