"""The calculator's estimates beside traced peaks: architectures × backends × lengths, and steps of training.

    nice python -m benchmarks.calculator_grid [model ...]

Each cell is a line of benchmarks/results/<date>_<device>_calculator_grid.jsonl; a cell that is there
already is not traced again, so a run can be stopped and taken up. The peak is that of PyTorch's memory
tracker over fake tensors (profiling/tracker.py), and owes nothing to the calculator.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import product

from attnscope.kernels.errors import AttnscopeError
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_peak, traced_training
from benchmarks import results
from benchmarks.calculator_models import MODELS

BACKENDS = ("eager", "sdpa_flash", "tiled", "transformers_eager", "transformers_sdpa")
LENGTHS = (1024, 16_384)
TRAINED = ("sdpa_flash", "sdpa_math", "transformers_eager", "transformers_sdpa")
TRAINED_LENGTH = 1024
TRAININGS = (("adamw", False), ("adafactor", True))
"""Optimiser, and whether layers are recomputed."""
TOPIC = "calculator_grid"


def cell(
    name: str, shape: ModelShape, backend: str, length: int, training: tuple[str, bool] | None
) -> dict:
    """One record: the estimate, the traced peak and the error, or the reason there is none."""
    record: dict = {"model": name, "backend": backend, "length": length}
    record |= {"layers": len(shape.layers)}
    asked: dict = {"backend": backend, "length": length}
    if training is not None:
        asked |= {"optimizer": training[0], "checkpointing": training[1]}
        record |= {"phase": "training", "optimizer": training[0], "checkpointing": training[1]}
    try:
        if training is None:
            predicted, traced = estimate(shape, **asked), traced_peak(shape, **asked)
        else:
            predicted = estimate(shape, phase="training", **asked)
            traced = traced_training(shape, **asked)
    except AttnscopeError as error:
        return {**record, "refused": str(error)}
    return {
        **record,
        "estimate_bytes": predicted.total_bytes,
        "traced_bytes": traced.total_bytes,
        "error_percent": round(100 * (predicted.total_bytes / traced.total_bytes - 1), 4),
        "estimate_without_weights": predicted.total_bytes - traced.parameter_bytes,
        "traced_without_weights": traced.total_bytes - traced.parameter_bytes,
        "peak_phase": predicted.peak_phase,
        "traced_module": traced.module,
        "seconds": round(traced.seconds, 2),
    }


def cells() -> Iterator[tuple[int, str, tuple[str, bool] | None]]:
    """Length, backend and training of each cell of a model, inference first."""
    yield from ((length, backend, None) for length, backend in product(LENGTHS, BACKENDS))
    for backend, training in product(TRAINED, TRAININGS):
        yield TRAINED_LENGTH, backend, training


def done() -> set[tuple]:
    """The cells that are recorded."""
    found = set()
    for file in results.RESULTS.glob(f"*_{TOPIC}.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            trained = "optimizer" in record
            training = (record["optimizer"], record["checkpointing"]) if trained else None
            found.add((record["model"], record["length"], record["backend"], training))
    return found


def main() -> None:
    """Traces what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help="all when left out")
    given = parser.parse_args()
    recorded = done()
    for name in given.models or MODELS:
        shape = shape_of(MODELS[name]())
        for length, backend, training in cells():
            if (name, length, backend, training) in recorded:
                continue
            record = cell(name, shape, backend, length, training)
            results.append(TOPIC, [record])
            shown = record.get("refused") or f"{record['error_percent']:+.3f} %"
            which = "" if training is None else f"{training[0]}{' recomputed' * training[1]}"
            print(f"{name:<18} {backend:<20} {length:>6} {which:<22} {shown}", flush=True)


if __name__ == "__main__":
    main()
