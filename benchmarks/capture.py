"""What capturing costs: time over the same backend without it, and bytes over q, k and log-sum-exp.

    python -m benchmarks.capture [--rounds 12] [--threads 1] [--shapes demo_like]

Pairs alternate in one process, on the same ids: a forward pass under the backend, then the same
pass captured, in turns that change which comes first. Every pair gives a ratio of its own; the
median of the ratios is the figure: of the process's own CPU time, which a busy machine disturbs
less, and of the wall clock beside it. Writes one line a case to
`benchmarks/results/<date>_<device>_capture.jsonl`.
"""

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    return hf.GPT2Config(
        vocab_size=VOCABULARY, n_positions=max(LENGTHS), bos_token_id=0, eos_token_id=0
    )


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


@dataclass(frozen=True, slots=True)
class Seconds:
    """One timing, by two clocks."""

    wall: float
    cpu: float


@contextmanager
def timed(into: list[Seconds]) -> Iterator[None]:
    """Adds the time of the block."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))


def run_plain(model: LoadedModel, ids: torch.Tensor, backend: str) -> None:
    """One forward pass under the backend, as `capture` asks for it, with nothing kept."""
    with model.lock, torch.no_grad(), swapped(model.model, backend):
        model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            logits_to_keep=torch.tensor([ids.shape[1] - 1]),
        )


def run_captured(model: LoadedModel, ids: torch.Tensor, backend: str) -> Capture:
    """The whole call of `capture`: planning, recording, token texts."""
    return capture(model, input_ids=ids, backend=backend, byte_budget=1 << 34)


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
    run_plain(model, ids, backend)
    made = run_captured(model, ids, backend)
    held, held_bytes = held_ratio(made), made.nbytes
    del made
    plain: list[Seconds] = []
    with_capture: list[Seconds] = []
    turns = [(run_plain, plain), (run_captured, with_capture)]
    for _ in range(rounds):
        turns.reverse()
        for run, seconds in turns:
            gc.collect()
            with timed(seconds):
                run(model, ids, backend)
    pairs = list(zip(plain, with_capture, strict=True))
    return {
        "measure": "capture overhead",
        "shape": shape,
        "length": length,
        "backend": backend,
        "threads": torch.get_num_threads(),
        "cpu_ratio": spread([after.cpu / before.cpu for before, after in pairs]),
        "wall_ratio": spread([after.wall / before.wall for before, after in pairs]),
        "least_cpu_ratio": round(min(x.cpu for x in with_capture) / min(x.cpu for x in plain), 4),
        "plain_cpu_s": spread([one.cpu for one in plain]),
        "captured_cpu_s": spread([one.cpu for one in with_capture]),
        "held_over_q_k_lse": round(held, 4),
        "captured_bytes": held_bytes,
    }


def main() -> None:
    """Measures every case and writes the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, choices=LENGTHS, default=LENGTHS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for shape in arguments.shapes:
        model = random_model(SHAPES[shape]())
        for length in arguments.lengths:
            for backend in arguments.backends:
                record = measure(shape, model, length, backend, arguments.rounds)
                append("capture", [record])
                print(shape, length, backend, record["cpu_ratio"], record["held_over_q_k_lse"])


if __name__ == "__main__":
    main()
