"""What capturing costs: time over the same backend without it, and bytes over q, k and log-sum-exp.

    python -m benchmarks.capture [--rounds 12]

Pairs alternate in one process, on the same ids: a forward pass under the backend, then the same
pass captured, in turns that change which comes first. Every pair gives a ratio of its own; the
median of the ratios is the figure. Writes one line a case to
`benchmarks/results/<date>_<device>_capture.jsonl`.
"""

import argparse
import gc
import time
from collections.abc import Callable

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from attnscope.models.capture import Capture, capture
from attnscope.models.loading import LoadedModel
from attnscope.models.swapping import swapped
from benchmarks.results import append, spread

VOCABULARY = 1024
LENGTHS = (1024, 2048)
BACKENDS = ("sdpa_flash", "tiled")


def gpt2_small() -> hf.PreTrainedConfig:
    """12 layers of 12 heads of 64."""
    return hf.GPT2Config(vocab_size=VOCABULARY, n_positions=max(LENGTHS))


def demo_like() -> hf.PreTrainedConfig:
    """4 layers of 8 query heads and 2 kv heads of 64."""
    return hf.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=max(LENGTHS),
    )


SHAPES: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "gpt2_small": gpt2_small,
    "demo_like": demo_like,
}


def random_model(config: hf.PreTrainedConfig) -> LoadedModel:
    """A model with random weights, and a tokenizer that can spell any id."""
    torch.manual_seed(0)
    core = Tokenizer(models.BPE(vocab={f"t{at}": at for at in range(VOCABULARY)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel()
    core.decoder = decoders.ByteLevel()
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return LoadedModel.of(model, hf.PreTrainedTokenizerFast(tokenizer_object=core))


def plain_seconds(model: LoadedModel, ids: torch.Tensor, backend: str) -> float:
    """One forward pass under the backend, as `capture` asks for it, with nothing kept."""
    start = time.perf_counter()
    with model.lock, torch.no_grad(), swapped(model.model, backend):
        model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            logits_to_keep=torch.tensor([ids.shape[1] - 1]),
        )
    return time.perf_counter() - start


def captured_seconds(model: LoadedModel, ids: torch.Tensor, backend: str) -> tuple[float, Capture]:
    """The whole call of `capture`: planning, recording, token texts."""
    start = time.perf_counter()
    made = capture(model, input_ids=ids, backend=backend, byte_budget=1 << 34)
    return time.perf_counter() - start, made


def held_ratio(made: Capture) -> float:
    """Bytes of the memory a capture keeps alive, over those of q, k and log-sum-exp."""
    least, kept = 0, {}
    for layer in made.layers:
        needed = (layer.q_BHQD, layer.k_BGKD, layer.lse_BHQ)
        least += sum(tensor.nbytes for tensor in needed)
        for tensor in (*needed, layer.value_norm_BGK, layer.sinks_H, layer.visible_keys_BK):
            if tensor is not None:
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
    return sum(kept.values()) / least


def measure(shape: str, model: LoadedModel, length: int, backend: str, rounds: int) -> dict:
    """One case: the ratios of alternating pairs."""
    ids = torch.randint(VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length))
    plain_seconds(model, ids, backend)
    _, made = captured_seconds(model, ids, backend)
    held = held_ratio(made)
    plain, with_capture = [], []
    for round_ in range(rounds):
        del made
        gc.collect()
        if round_ % 2:
            seconds, made = captured_seconds(model, ids, backend)
            plain.append(plain_seconds(model, ids, backend))
        else:
            plain.append(plain_seconds(model, ids, backend))
            seconds, made = captured_seconds(model, ids, backend)
        with_capture.append(seconds)
    ratios = [after / before for before, after in zip(plain, with_capture, strict=True)]
    return {
        "measure": "capture overhead",
        "shape": shape,
        "length": length,
        "backend": backend,
        "threads": torch.get_num_threads(),
        "ratio": spread(ratios),
        "least_ratio": round(min(with_capture) / min(plain), 4),
        "plain_s": spread(plain),
        "captured_s": spread(with_capture),
        "held_over_q_k_lse": round(held, 4),
        "captured_bytes": made.nbytes,
    }


def main() -> None:
    """Measures every case and writes the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    records = []
    for shape, config in SHAPES.items():
        model = random_model(config())
        for length in LENGTHS:
            for backend in BACKENDS:
                record = measure(shape, model, length, backend, rounds)
                records.append(record)
                print(shape, length, backend, record["ratio"], record["held_over_q_k_lse"])
    print(append("capture", records))


if __name__ == "__main__":
    main()
