"""What is to be estimated: a model, a backend, a batch, a dtype and a phase; all but the length."""

from dataclasses import dataclass

from attnscope.kernels.errors import InvalidCall, ModelNotSwappable, UnknownBackend
from attnscope.models.pass_inputs import Phase
from attnscope.models.shape import ModelShape
from attnscope.profiling import training_memory
from attnscope.profiling.attention_memory import CONTENDERS, OWN, check_dtype

PHASES = ("prefill", "decode", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be estimated: all but the length.

    Attributes:
        shape: The model.
        backend: One of `CONTENDERS`.
        batch: Sequences.
        dtype: Compute dtype: float32, bfloat16 or float16.
        phase: prefill, decode (the next token after n − 1) or training (one step).
        all_logits: In a prefill, logits of every position instead of the last.
        page: Tokens of a page of a paged cache, or None for one that grows to fit.
        optimizer: In training; one of `training_memory.Optimizer`.
        checkpointing: In training, recompute each layer in the backward pass.
    """

    shape: ModelShape
    backend: str
    batch: int
    dtype: str
    phase: Phase
    all_logits: bool = False
    page: int | None = None
    optimizer: str = "adamw"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InvalidCall(f"batch must be at least 1, got {self.batch}.")
        if self.phase not in PHASES:
            raise InvalidCall(f"No phase {self.phase!r}.", f"Use {', '.join(PHASES)}.")
        if self.page is not None and self.page < 1:
            raise InvalidCall(f"A page must hold at least 1 token, got {self.page}.")
        check_dtype(self.dtype)
        training_memory.check_optimizer(self.optimizer)
        if self.backend not in CONTENDERS:
            raise UnknownBackend(
                f"No backend {self.backend!r}.", f"Use one of {', '.join(CONTENDERS)}."
            )
        if self.backend != OWN and not self.shape.is_swappable:
            raise ModelNotSwappable(
                f"{self.shape.architecture} computes attention outside transformers' attention "
                "interface, so no backend can be chosen for it.",
                f"Use {OWN}, its own.",
            )
        if self.phase == "decode" and not self.shape.has_cache:
            raise InvalidCall(
                f"{self.shape.architecture} keeps no cache, so it has no decoding step.",
                "Use prefill.",
            )

    @property
    def itemsize(self) -> int:
        """Bytes of the compute dtype."""
        return check_dtype(self.dtype)
