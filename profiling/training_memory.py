"""What training keeps beside the pass: optimiser states and master weights, and what a step of the optimiser takes.

P parameters, s bytes of the compute dtype.
"""

from typing import Literal, get_args

from attnscope.kernels.errors import InvalidCall
from attnscope.models.shape import ModelShape
from attnscope.profiling.estimate import Term
from attnscope.profiling.units import count

Optimizer = Literal["sgd", "adam", "adamw", "adamw_8bit", "adafactor"]

_ADAM = "arXiv 1412.6980, algorithm 1"
_TEMPORARIES = {"sgd": 0, "adam": 2, "adamw": 2, "adafactor": 1, "adamw_8bit": 0}
"""Of a parameter's size, float32, at once: Adam's root and its quotient, Adafactor's update. The kernel of the
8-bit one makes none."""
_BLOCK = 256
"""Elements that share one float32 scale in an 8-bit state of bitsandbytes."""
_SMALL = 4096
"""A parameter of fewer elements keeps its states in float32 (bitsandbytes, `min_8bit_size`)."""
_MAPS = 2 * 256 * 4
"""What the codes of either state stand for: one float32 each, once for all parameters."""


def check_optimizer(name: str) -> None:
    """Refuses an optimiser whose states are not known.

    Raises:
        InvalidCall: Names those there are.
    """
    if name not in get_args(Optimizer):
        raise InvalidCall(f"No optimizer {name!r}.", f"Use {', '.join(get_args(Optimizer))}.")


def kept(shape: ModelShape, optimizer: str, itemsize: int) -> tuple[Term, ...]:
    """Master weights and optimiser states: there from the first step to the last.

    Args:
        shape: The model.
        optimizer: One of `Optimizer`.
        itemsize: s; below 4, float32 master weights are kept, as mixed precision asks
            (arXiv 1710.03740, section 3.1).
    """
    # Those that the model keeps in float32 in any dtype are their own masters.
    narrow = dict(shape.trained).get("bfloat16", 0)
    terms = []
    if itemsize < 4 and narrow:
        terms.append(
            Term(
                name="master weights",
                nbytes=4 * narrow,
                formula="P·4",
                numbers=f"{count(narrow)}·4",
                source="arXiv 1710.03740, section 3.1",
            )
        )
    states = _states(shape, optimizer)
    return (*terms, states) if states.nbytes else tuple(terms)


def step(shape: ModelShape, optimizer: str, itemsize: int) -> Term:
    """What the optimiser's step takes at its worst, besides what is kept and every gradient.

    PyTorch's own, one parameter after the other (`foreach=False`); where all are stepped at once, it is
    as many times more as the parameters are larger than the largest.

    Args:
        shape: The model.
        optimizer: One of `Optimizer`.
        itemsize: s; below 4, each gradient is made float32 for its master.
    """
    made = _TEMPORARIES[optimizer] + (itemsize < 4)
    return Term(
        name="optimiser step",
        nbytes=4 * made * shape.largest,
        formula="temporaries·P_largest·4",
        numbers=f"{made}·{count(shape.largest)}·4",
        source="torch.optim, one parameter at a time",
    )


def _states(shape: ModelShape, optimizer: str) -> Term:
    parameters = shape.trained_parameters
    number = count(parameters)
    if optimizer == "adamw_8bit":
        return _eight_bit_states(shape)
    nbytes, formula, numbers, source = {
        "sgd": (0, "0", "0", "no momentum, no state"),
        "adam": (8 * parameters, "2·P·4", f"2·{number}·4", _ADAM),
        "adamw": (8 * parameters, "2·P·4", f"2·{number}·4", _ADAM),
        "adafactor": (
            4 * shape.factors,
            "Σ(rows + columns)·4",
            f"{count(shape.factors)}·4",
            "arXiv 1804.04235, section 3",
        ),
    }[optimizer]
    return Term(
        name="optimiser states", nbytes=nbytes, formula=formula, numbers=numbers, source=source
    )


def _eight_bit_states(shape: ModelShape) -> Term:
    """Those of `bitsandbytes.optim.AdamW8bit`, which leaves small parameters in float32."""
    small = sum(size * times for size, times in shape.sizes if size < _SMALL)
    blocks = sum(-(-size // _BLOCK) * times for size, times in shape.sizes if size >= _SMALL)
    large = shape.trained_parameters - small
    maps = _MAPS if blocks else 0
    return Term(
        name="optimiser states",
        nbytes=2 * (large + 4 * blocks) + 8 * small + maps,
        formula=f"2·(P_large + Σ⌈P_large/{_BLOCK}⌉·4) + 2·P_small·4 + maps",
        numbers=f"2·({count(large)} + {count(blocks)}·4) + 2·{count(small)}·4 + {count(maps)}",
        source="arXiv 2110.02861, section 2; bitsandbytes 0.50, optim/optimizer.py",
    )
