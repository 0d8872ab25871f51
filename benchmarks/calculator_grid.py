"""The calculator's estimates beside traced peaks: architectures × backends × lengths.

    nice python -m benchmarks.calculator_grid [model ...]

Each cell is a line of benchmarks/results/<date>_<device>_calculator_grid.jsonl; a cell that is there
already is not traced again, so a run can be stopped and taken up. The peak is that of PyTorch's memory
tracker over fake tensors (profiling/tracker.py), and owes nothing to the calculator.
"""

import argparse
import json
from itertools import product

from attnscope.kernels.errors import AttnscopeError
from attnscope.models.shape import ModelShape, shape_of
from attnscope.profiling.calculator import estimate
from attnscope.profiling.tracker import traced_peak
from benchmarks import results
from benchmarks.calculator_models import MODELS

BACKENDS = ("eager", "sdpa_flash", "tiled", "transformers_eager", "transformers_sdpa")
LENGTHS = (1024, 16_384)
TOPIC = "calculator_grid"


def cell(name: str, shape: ModelShape, backend: str, length: int) -> dict:
    """One record: the estimate, the traced peak and the error, or the reason there is none."""
    record = {"model": name, "backend": backend, "length": length, "layers": len(shape.layers)}
    try:
        predicted = estimate(shape, backend=backend, length=length)
        traced = traced_peak(shape, backend=backend, length=length)
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


def done() -> set[tuple[str, str, int]]:
    """The cells that are recorded."""
    found = set()
    for file in results.RESULTS.glob(f"*_{TOPIC}.jsonl"):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            found.add((record["model"], record["backend"], record["length"]))
    return found


def main() -> None:
    """Traces what is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="model", help="all when left out")
    given = parser.parse_args()
    recorded = done()
    for name in given.models or MODELS:
        shape = shape_of(MODELS[name]())
        for length, backend in product(LENGTHS, BACKENDS):
            if (name, backend, length) in recorded:
                continue
            record = cell(name, shape, backend, length)
            results.append(TOPIC, [record])
            shown = record.get("refused") or f"{record['error_percent']:+.3f} %"
            print(f"{name:<18} {backend:<20} {length:>6}  {shown}", flush=True)


if __name__ == "__main__":
    main()
