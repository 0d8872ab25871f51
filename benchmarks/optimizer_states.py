"""What the optimisers of 8 bits keep beside what the calculator says they do, byte for byte.

    python -m venv data/optimizers
    data/optimizers/bin/pip install -r requirements.txt bitsandbytes==0.50.2 torchao==0.18.0
    data/optimizers/bin/python -m benchmarks.optimizer_states

Small models with random weights take one step on a CPU. The calculator's term is bitsandbytes'; torchao's own
AdamW8bit is recorded beside it, for it differs: a map for each state of each parameter, and float32 where the
elements are no whole number of blocks.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers as hf
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from attnscope.models.pass_inputs import model_class
from attnscope.models.shape import shape_of
from attnscope.profiling.training_memory import kept
from benchmarks.results import append

TOPIC = "optimizer_states"
_SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 248,
    "num_hidden_layers": 2,
    "vocab_size": 1001,
}
_HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
MODELS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**_SIZES, **_HEADS),
    "gpt2": lambda: hf.GPT2Config(
        n_embd=60,
        n_layer=2,
        n_head=4,
        vocab_size=1001,
        n_positions=65,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "mixtral": lambda: hf.MixtralConfig(**_SIZES, **_HEADS, num_local_experts=4),
    "bert": lambda: hf.BertConfig(**_SIZES, num_attention_heads=4),
}
"""Of parameters on both sides of every threshold, and of sizes that are no whole number of blocks."""


def stepped(config: hf.PreTrainedConfig, make: Callable[..., torch.optim.Optimizer]) -> int:
    """Bytes of the optimiser's states after one step, those that parameters share once."""
    torch.manual_seed(0)
    model = model_class(config).from_config(config, dtype=torch.float32)
    optimizer = make(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    held = {
        part.untyped_storage().data_ptr(): part.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
        for part in _parts(value)
        if part.ndim  # the number of a step is no state of a weight
    }
    return sum(held.values())


def _parts(value: torch.Tensor) -> Iterator[torch.Tensor]:
    if not is_traceable_wrapper_subclass(value):
        yield value
        return
    for name in value.__tensor_flatten__()[0]:
        yield getattr(value, name)


def main() -> None:
    """Steps every model with both, and appends what they kept."""
    import bitsandbytes  # pyright: ignore[reportMissingImports]
    import torchao.optim  # pyright: ignore[reportMissingImports]

    records = []
    for name, make in MODELS.items():
        shape = shape_of(make())
        record = {
            "model": name,
            "parameters": shape.parameters,
            "estimate_bytes": kept(shape, "adamw_8bit", 4)[-1].nbytes,
            "bitsandbytes": bitsandbytes.__version__,
            "bitsandbytes_bytes": stepped(make(), bitsandbytes.optim.AdamW8bit),
            "torchao": torchao.__version__,
            "torchao_bytes": stepped(make(), torchao.optim.AdamW8bit),
        }
        print(record)
        records.append(record)
    print(f"appended to {append(TOPIC, records)}")


if __name__ == "__main__":
    main()
