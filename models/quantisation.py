"""How a configuration says that weights are quantised, and what they then take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from attnscope.kernels.errors import ModelUnsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """The storage of quantised weights.

    Attributes:
        method: As the configuration names it.
        bits: Of one weight.
        group: Weights that share one scale.
        scale_bits: Of a scale, over a group, other constants of the group included.
        parameters: How many weights are stored so.
    """

    method: str
    bits: int
    group: int
    scale_bits: int
    parameters: int

    @property
    def nbytes(self) -> int:
        """Of the weights, their scales and zeros, rounded up."""
        groups = -(-self.parameters // self.group)
        return -(-(self.parameters * self.bits + groups * self.scale_bits) // 8)


def quantisation_of(config: PreTrainedConfig, model: PreTrainedModel) -> Quantisation | None:
    """What `quantization_config` says, applied to the weights that it concerns.

    Args:
        config: May carry a `quantization_config`, as an object or a mapping.
        model: The model, in full precision, on any device.

    Raises:
        ModelUnsupported: A method whose storage is not known here.
    """
    said = getattr(config, "quantization_config", None)
    if said is None:
        return None
    fields: Mapping[str, Any] = said if isinstance(said, Mapping) else said.to_dict()
    method = str(fields.get("quant_method", "")).rpartition(".")[2].lower()
    bits, group, scale_bits = _storage(method, fields)
    spared = tuple(fields.get("modules_to_not_convert") or ())
    experts_only = method == "mxfp4"
    count = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not experts_only
        and module is not model.get_output_embeddings()
        and not any(part in name for part in spared)
    )
    if method in ("mxfp4", "fp8"):
        # Experts are one parameter of three dimensions a projection.
        count += sum(weight.numel() for weight in model.parameters() if weight.ndim == 3)
    return Quantisation(
        method=method, bits=bits, group=group, scale_bits=scale_bits, parameters=count
    )


def _storage(method: str, fields: Mapping[str, Any]) -> tuple[int, int, int]:
    """Bits of a weight, weights of a group, and bits of the group's constants."""
    if method in ("gptq", "awq"):
        bits = int(fields.get("bits", 4))
        group = int(fields.get("group_size", 128))
        # A scale in 16 bits and a zero point as wide as a weight.
        return bits, group if group > 0 else 4096, 16 + bits
    if method == "bitsandbytes" and fields.get("load_in_8bit"):
        return 8, 4096, 32
    if method == "bitsandbytes":
        # QLoRA (arXiv 2305.14314), section 3: blocks of 64; double quantisation, blocks of 256.
        double = bool(fields.get("bnb_4bit_use_double_quant"))
        return (4, 64 * 256, 256 * 8 + 32) if double else (4, 64, 32)
    if method == "mxfp4":
        return 4, 32, 8  # Open Compute Project, microscaling formats 1.0, section 5.3
    if method == "fp8":
        rows, columns = fields.get("weight_block_size") or (128, 128)
        return 8, int(rows) * int(columns), 32
    raise ModelUnsupported(
        f"The weights are quantised by {method or 'an unnamed method'}, whose storage is not known here.",
        "Leave quantization_config out, or use gptq, awq, bitsandbytes, mxfp4 or fp8.",
    )
