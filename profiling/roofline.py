"""The work of one pass, and the least time it can take on a device (roofline, Williams et al. 2009).

B batch, n tokens; FLOP counts a multiply-add as 2.
"""

from collections import Counter
from dataclasses import dataclass

from attnscope.kernels.errors import InvalidCall
from attnscope.profiling.attention_memory import OWN, SDPA, call_of, cost_of
from attnscope.profiling.peak import fixed_terms, pass_of_plan
from attnscope.profiling.plan import Plan

_BACKWARD = 2.5
"""FLOP of the attention's backward pass over those of its forward pass: five products for two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one pass computes and moves.

    Attributes:
        matmul_flops: Of every matrix product outside attention, counted on the model's own code.
        attention_flops: As the backend declares them.
        weight_bytes: Read: every weight once, of experts those that some token visits.
        attention_bytes: Read and written, as the backend declares them; the cache is in it.
        tokens: That the pass produces or reads.
    """

    matmul_flops: int
    attention_flops: int
    weight_bytes: int
    attention_bytes: int
    tokens: int

    @property
    def flops(self) -> int:
        """All of them."""
        return self.matmul_flops + self.attention_flops

    @property
    def nbytes(self) -> int:
        """All that must move; activations between operations stay on the chip at best."""
        return self.weight_bytes + self.attention_bytes

    def seconds(self, *, flops_per_second: float, bytes_per_second: float) -> float:
        """The least time: whichever of arithmetic and memory takes longer.

        Args:
            flops_per_second: The device's peak in the compute dtype.
            bytes_per_second: Its memory's bandwidth.

        Raises:
            InvalidCall: A rate that is not above 0.
        """
        if min(flops_per_second, bytes_per_second) <= 0:
            raise InvalidCall(
                f"Rates must be above 0, got {flops_per_second:g} FLOP/s and "
                f"{bytes_per_second:g} B/s."
            )
        return max(self.flops / flops_per_second, self.nbytes / bytes_per_second)


def work(plan: Plan, length: int) -> Work:
    """What one pass computes and moves.

    Args:
        plan: See `calculator.Plan`.
        length: Tokens a sequence; in a decoding step, with the new one.
    """
    decode = plan.phase == "decode"
    done = pass_of_plan(plan, length)
    tokens = plan.batch * (1 if decode else length)
    flops, moved = _attention(plan, length)
    return Work(
        matmul_flops=sum(count * plan.batch**b * length**n for b, n, count in done.flops),
        attention_flops=flops,
        weight_bytes=_weight_bytes(plan, tokens),
        attention_bytes=moved,
        tokens=tokens,
    )


def cost_per_million_tokens(seconds: float, tokens: int, price_per_hour: float) -> float:
    """The price of a million tokens, in the currency of the price.

    Args:
        seconds: Of one pass.
        tokens: Of one pass.
        price_per_hour: Of the device.
    """
    return seconds / tokens * 1e6 / 3600 * price_per_hour


def _attention(plan: Plan, length: int) -> tuple[int, int]:
    # What transformers does is moved as by ours of the same kind.
    name = {SDPA: "sdpa_flash", OWN: "eager"}.get(plan.backend, plan.backend)
    times = 1 + _BACKWARD if plan.phase == "training" else 1
    flops, moved = 0, 0
    asked = {"batch": plan.batch, "length": length, "dtype": plan.dtype}
    # Layers of a kind cost the same, and some costs take a look at every row of blocks.
    for layer, layers in Counter(plan.shape.layers).items():
        if layer.is_attention:
            cost = cost_of(name, call_of(layer, decode=plan.phase == "decode", **asked))
            # The products of a model's own attention are among its others.
            flops += 0 if plan.backend == OWN else layers * cost.flops
            moved += layers * (cost.bytes_read + cost.bytes_written)
    return int(flops * times), int(moved * times)


def _weight_bytes(plan: Plan, tokens: int) -> int:
    shape = plan.shape
    every = next(term.nbytes for term in fixed_terms(plan) if term.name == "weights")
    visited = every
    if shape.experts and shape.parameters:
        seen = min(shape.experts, shape.active_experts * tokens)
        unseen = shape.expert_parameters * (shape.experts - seen) // shape.experts
        visited = every * (shape.parameters - unseen) // shape.parameters
    # The backward pass reads them twice: for the gradient of the input and of the weight's update.
    return visited * 3 if plan.phase == "training" else visited
