"""From transformers' mask rules to patterns: what a model hides, without an n × n mask.

transformers describes a mask as a function of indices and hands it to the mask function that is
registered beside an attention function. Its own functions evaluate it for every pair. Ours keeps
the rule, recognises the family it belongs to (`mask_rules`), and lets every backend build what it
needs.

B batch, H query heads, Q and K positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from attnscope.kernels.errors import ModelNotSwappable, UnsupportedCall
from attnscope.kernels.patterns.causal import Causal
from attnscope.kernels.patterns.full import Full
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.kernels.patterns.predicate import Predicate
from attnscope.kernels.patterns.sliding_window import SlidingWindow
from attnscope.models.mask_rules import Region, index_rule, recognise

CHOOSE_ANOTHER = (
    "Choose a model that uses the interface: "
    "GPT-2, Llama, Qwen, Mistral, Gemma, Phi, BERT and most others do."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What one attention call hides.

    Attributes:
        patterns: One pattern for all sequences, or one per sequence where the rule depends on the
            sequence.
        query_offset: Absolute position of the first query; the first key is at 0.
        visible_keys_BK: bool, False where a key is padding; None when nothing is padded.
        dropped_keys: How many keys a cache held before the first one, and dropped.
    """

    patterns: tuple[Pattern, ...]
    query_offset: int
    visible_keys_BK: Tensor | None
    dropped_keys: int = 0

    def pattern_of(self, sequence: int) -> Pattern:
        """The pattern of one sequence of the batch."""
        return self.patterns[sequence if len(self.patterns) > 1 else 0]


class MaskRule:
    """What our mask function gives the model, and the model hands on to our attention function.

    It answers the few questions that models ask of a mask in passing (its rank, its device, a crop
    of its last dimension). A model that computes with it does its own attention: that raises
    `ModelNotSwappable`.
    """

    __slots__ = ("architecture", "device", "mask", "shape")

    ndim = 4
    dtype = torch.bool

    def __init__(
        self, mask: Mask, shape: torch.Size, device: torch.device, architecture: str
    ) -> None:
        self.mask = mask
        self.shape = shape
        self.device = device
        self.architecture = architecture

    def size(self, dim: int | None = None) -> torch.Size | int:
        """As `Tensor.size`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """As `Tensor.dim`."""
        return self.ndim

    def to(self, *_args: object, **_kwargs: object) -> "MaskRule":
        """Itself: a rule lives on no device and has no dtype."""
        return self

    def contiguous(self) -> "MaskRule":
        """Itself."""
        return self

    def __getitem__(self, index: object) -> "MaskRule":
        """A crop of the keys, `[:, :, :, :length]`, as models do with a mask too long."""
        parts = index if isinstance(index, tuple) else (index,)
        *others, last = parts
        whole = all(part in (slice(None), Ellipsis) for part in others)
        complete = len(parts) == self.ndim or Ellipsis in others
        if not (whole and complete and isinstance(last, slice)):
            raise self._touched("indexing")
        if last.start not in (None, 0) or last.step not in (None, 1):
            raise self._touched("indexing")
        keys = len(range(*last.indices(self.shape[-1])))
        seen = self.mask.visible_keys_BK
        cropped = replace(self.mask, visible_keys_BK=None if seen is None else seen[:, :keys])
        shape = torch.Size((*self.shape[:-1], keys))
        return MaskRule(cropped, shape, self.device, self.architecture)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._touched(f"{name!r}")

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: object, args: tuple = (), kwargs: object = None
    ) -> object:
        del types, kwargs
        rule = next((arg for arg in args if isinstance(arg, cls)), None)
        operation = getattr(func, "__name__", "an operation")
        if rule is None:
            raise ModelNotSwappable(
                f"This model computes its own attention ({operation} on its mask)."
            )
        raise rule._touched(operation)

    def _touched(self, operation: str) -> ModelNotSwappable:
        return ModelNotSwappable(
            f"{self.architecture} computes attention outside transformers' attention interface "
            f"({operation} on its mask): its backend cannot be chosen, nor its heads read.",
            CHOOSE_ANOTHER,
        )


def mask_function(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    **others: object,
) -> "MaskRule":
    """The mask function registered in transformers; its arguments are transformers'.

    Args:
        batch_size: B.
        q_length: Q.
        kv_length: K.
        q_offset: Position of the first query (a tensor under static caches).
        kv_offset: Position of the first key.
        others: `mask_function` (the rule), `attention_mask` (padding `[B, K]`), `local_size`,
            `use_vmap`, `config`, `device`; what only transformers' own mask functions need is not
            read.
    """
    given = others.get("attention_mask")
    if isinstance(given, MaskRule):
        return given
    device = torch.device(others.get("device", "cpu"))  # pyright: ignore[reportArgumentType]
    architecture = str(getattr(others.get("config"), "model_type", "this model"))
    rule = index_rule(others["mask_function"], vmapped=bool(others.get("use_vmap")))  # pyright: ignore[reportArgumentType]
    shape = Region(batch_size, q_length, kv_length, int(q_offset), int(kv_offset), device)
    local_size = others.get("local_size")
    patterns = recognise(
        rule, shape, local_size if isinstance(local_size, int) else None, architecture
    )
    mask = Mask(
        patterns=patterns,
        query_offset=shape.query_offset - shape.key_offset,
        visible_keys_BK=_padding(given, shape) if isinstance(given, Tensor) else None,
        dropped_keys=shape.key_offset,
    )
    return MaskRule(mask, torch.Size((batch_size, 1, q_length, kv_length)), device, architecture)


def cropped(given_BHQK: Tensor, query_length: int, key_length: int, architecture: str) -> Tensor:
    """A tensor of one number a pair, `[B or 1, H or 1, Q, K]`: of its first K keys, as transformers takes it.

    Args:
        given_BHQK: `[B or 1, H or 1, Q or 1, K or more]`, a mask or a bias.
        query_length: Q.
        key_length: K.
        architecture: For messages.

    Raises:
        UnsupportedCall: It has another shape.
    """
    if (
        given_BHQK.ndim != 4
        or given_BHQK.shape[2] not in (1, query_length)
        or given_BHQK.shape[3] < key_length
    ):
        raise UnsupportedCall(
            f"{architecture} passes a mask or bias of shape {tuple(given_BHQK.shape)} for "
            f"{query_length} queries and {key_length} keys, which has no meaning here.",
            "Run it with the model's own attention instead.",
        )
    return given_BHQK[..., :key_length].expand(-1, -1, query_length, -1)


def dense_mask(mask_BHQK: Tensor, query_length: int, key_length: int, architecture: str) -> Mask:
    """A mask that the model made itself as a tensor, kept exactly.

    Args:
        mask_BHQK: bool `[B or 1, H or 1, Q, K or more]`, True where visible; see `cropped`.
        query_length: Q.
        key_length: K.
        architecture: For messages and labels.

    Raises:
        UnsupportedCall: It is not of booleans, it differs between heads, or its shape does not fit.
    """
    if mask_BHQK.dtype != torch.bool:
        raise UnsupportedCall(
            f"{architecture} passes a mask of {mask_BHQK.dtype}, which has no meaning here.",
            "Run it with the model's own attention instead.",
        )
    seen_BHQK = cropped(mask_BHQK, query_length, key_length, architecture)
    if seen_BHQK.shape[1] > 1 and not bool((seen_BHQK == seen_BHQK[:, :1]).all()):
        raise UnsupportedCall(
            f"{architecture} masks every head differently, which a capture cannot hold.",
            "Choose another model.",
        )
    seen_BQK = seen_BHQK[:, 0]
    offset = max(key_length - query_length, 0)
    keys_BK = seen_BQK.any(1)
    families = (Causal(), Full())
    query_Q1 = torch.arange(query_length, device=seen_BQK.device)[:, None] + offset
    key_K = torch.arange(key_length, device=seen_BQK.device)[None]
    for family in families:
        if torch.equal(family.visible(query_Q1, key_K) & keys_BK[:, None], seen_BQK):
            padding = None if bool(keys_BK.all()) else keys_BK
            return Mask(patterns=(family,), query_offset=offset, visible_keys_BK=padding)
    label = f"the mask {architecture} made"
    patterns = tuple(
        Predicate(function=partial(_look_up, seen_QK, offset), label=label) for seen_QK in seen_BQK
    )
    return Mask(patterns=patterns, query_offset=offset, visible_keys_BK=None)


def absent_mask(*, causal: bool, window: int | None, query_length: int, key_length: int) -> Mask:
    """What no mask at all means: what transformers' SDPA function takes it for.

    A causal call with more keys than queries is the prefill of a static cache: the first query
    aligns with the first key. A single query sees everything.
    """
    if not causal or query_length == 1:
        return Mask(
            patterns=(Full(),), query_offset=max(key_length - query_length, 0), visible_keys_BK=None
        )
    windowed = window is not None and window < query_length
    pattern = SlidingWindow(window=window) if windowed and window is not None else Causal()
    return Mask(patterns=(pattern,), query_offset=0, visible_keys_BK=None)


def _look_up(seen_QK: Tensor, offset: int, query_index: Tensor, key_index: Tensor) -> Tensor:
    return seen_QK[(query_index - offset).to(seen_QK.device), key_index.to(seen_QK.device)].to(
        query_index.device
    )


def _padding(attention_mask_BK: Tensor, region: Region) -> Tensor | None:
    """Which keys are tokens; keys beyond the mask are the unused end of a static cache."""
    end = region.key_offset + region.key_length
    given_BK = attention_mask_BK.to(region.device, torch.bool)
    missing = end - given_BK.shape[-1]
    if missing > 0:
        given_BK = torch.nn.functional.pad(given_BK, (0, missing))
    seen_BK = given_BK[:, region.key_offset : end]
    return None if bool(seen_BK.all()) else seen_BK.expand(region.batch, -1)
