"""Whether the calculator is right on a device: its estimate beside the peak that the allocator tells.

Models of random weights with the widths of well-known ones and few layers, so that nothing is
downloaded: grouped queries, and windows beside full layers. Each reads one prompt on every backend
that takes it; `error_percent` is that of the estimate. On a CPU, in a toy run, every allocation is
counted instead.
"""

import gc
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Record
from benchmarks.results import failure

_LLAMA = {
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "num_hidden_layers": 4,
    "max_position_embeddings": 32_768,
}
_MISTRAL = {**_LLAMA, "vocab_size": 32_000, "sliding_window": 4096}
_TOY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
_TOY_WINDOW = {**_TOY, "sliding_window": 8}
_LENGTHS, _TOY_LENGTHS = (1024, 4096, 16_384), (24,)


def memory(bench: Bench) -> Iterator[Record]:
    """One record a model and length: the estimate and the peak of each backend, in bytes."""
    if importlib.util.find_spec("transformers") is None:
        yield {"name": "memory", "not_run": "transformers is not installed"}
        return
    for title, config in _configs(bench):
        model = _model(bench, config)
        for length in _TOY_LENGTHS if bench.toy else _LENGTHS:
            record: Record = {
                "name": f"{title}, {length} tokens, {_dtype(bench)}",
                "call": {"dtype": _dtype(bench), "key_length": length},
            }
            if bench.seconds_left <= 0:
                yield {**record, "not_run": "out of time"}
            else:
                yield {**record, **_estimated_and_measured(bench, model, length)}
        del model
        gc.collect()


def _estimated_and_measured(bench: Bench, model: Any, length: int) -> Record:
    # Here and not above: the other sections run where there is no transformers.
    from attnscope.models.shape import shape_of
    from attnscope.models.swapping import swapped
    from attnscope.profiling.calculator import estimate

    shape = shape_of(model.config)
    generator = torch.Generator().manual_seed(0)
    ids_BN = torch.randint(model.config.vocab_size, (1, length), generator=generator)
    ids_BN = ids_BN.to(bench.device)
    weights = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))

    def read() -> None:
        model(input_ids=ids_BN, use_cache=True, logits_to_keep=1)

    found: dict[str, Record] = {}
    for backend in bench.backends:
        if not backend.exact:
            continue
        try:
            with torch.no_grad(), swapped(model, backend.name):
                read()
                measured = weights + ids_BN.nbytes + _peak_bytes(bench, read)
            predicted = estimate(
                shape, backend=backend.name, length=length, dtype=_dtype(bench)
            ).total_bytes
        except Exception as error:  # noqa: BLE001 - a refusal, or memory that ran out, is its result
            found[backend.name] = {"not_run": failure(error)}
        else:
            found[backend.name] = {
                "estimate_bytes": predicted,
                "measured_bytes": measured,
                "error_percent": 100 * (predicted / measured - 1),
            }
    errors = [abs(each["error_percent"]) for each in found.values() if "error_percent" in each]
    return {"memory": found, "worst_error_percent": max(errors, default=None)}


def _peak_bytes(bench: Bench, call: Callable[[], None]) -> int:
    """The most that the call holds beyond what stood before it."""
    if bench.device.type != "cuda":
        from attnscope.profiling.memory import counted_peak

        return counted_peak(call, bench.device)[1]
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _configs(bench: Bench) -> Iterator[tuple[str, Any]]:
    from transformers import LlamaConfig, MistralConfig

    llama, mistral = (_TOY, _TOY_WINDOW) if bench.toy else (_LLAMA, _MISTRAL)
    yield "Llama 3 8B's widths", LlamaConfig(**llama)  # pyright: ignore[reportArgumentType]
    yield "Mistral 7B's widths", MistralConfig(**mistral)  # pyright: ignore[reportArgumentType]


def _model(bench: Bench, config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with torch.device(bench.device):
        model = AutoModelForCausalLM.from_config(config).eval()
    return model.to(getattr(torch, _dtype(bench)))


def _dtype(bench: Bench) -> str:
    return "float32" if bench.toy else "bfloat16"
