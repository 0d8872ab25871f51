"""Which of the two forward kernels answers a call: by what its tensors are, and by `tuned.toml`.

B batch, H query heads, G kv heads, Q queries, K keys, D head dim, N positions, R distances.
"""

from torch import Tensor

from attnscope.kernels.triton.configurations import (
    capability_of,
    flash_config,
    hopper_config,
    kernel_entry,
)
from attnscope.kernels.triton.flash_forward import launch_flash_forward
from attnscope.kernels.triton.flash_hopper import launch_flash_hopper
from attnscope.kernels.triton.flash_rule import FlashRule
from attnscope.kernels.triton.tuned import Kernel, Rule, Tuned

COPIED_BYTES = 16
"""Bulk copies begin at multiples of it, row by row (CUDA driver API, cuTensorMapEncodeTiled)."""


def rule_of(rule: FlashRule, *, has_padding: bool) -> Rule:
    """The kind of call that configurations are chosen by."""
    if has_padding:
        return "padded"
    if rule.bounded_before:
        return "window"
    return "causal" if rule.bounded_after else "full"


def misfit(q_BHQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, rule: FlashRule) -> str | None:
    """What keeps the kernel for Hopper from these tensors, in words; None when nothing does.

    The portable kernel takes all of them.
    """
    size = q_BHQD.element_size()
    if size != 2:
        return f"it computes in float16 and bfloat16, and q is {q_BHQD.dtype}"
    if rule.first_keys:
        return f"it visits one run of keys, and {rule.first_keys} first ones are another"
    if v_BGKD.shape[3] * size % COPIED_BYTES:
        return f"rows of the output are {v_BGKD.shape[3] * size} bytes, no multiple of 16"
    for name, tensor in (("q", q_BHQD), ("k", k_BGKD), ("v", v_BGKD)):
        *strides, within = tensor.stride()
        if within != 1:
            return f"the last stride of {name} is {within}, not 1"
        if any(stride <= 0 or stride * size % COPIED_BYTES for stride in strides):
            return f"strides of {name} are {tensor.stride()}, not all multiples of 16 bytes"
        if tensor.data_ptr() % COPIED_BYTES:
            return f"{name} does not begin at a multiple of 16 bytes"
    return None


def gluon_misfit(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    rule: FlashRule,
    *,
    has_sinks: bool,
    has_padding: bool,
) -> str | None:
    """What keeps the kernel in Gluon from these tensors, as `misfit`: it takes less than that for Hopper."""
    widths = q_BHQD.shape[3], v_BGKD.shape[3]
    if widths not in ((64, 64), (128, 128)):
        return f"heads are 64 or 128 wide, and these are {widths[0]}, their values {widths[1]}"
    if has_padding or has_sinks or rule.softcap is not None:
        return "it knows no padding, no sink logits and no softcap"
    return misfit(q_BHQD, k_BGKD, v_BGKD, rule)


def preferred(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    rule: FlashRule,
    *,
    has_sinks: bool,
    has_padding: bool,
) -> Tuned | None:
    """The entry by which a kernel for Hopper answers the call; None where the portable one does."""
    tensors = (q_BHQD, k_BGKD, v_BGKD)
    fitting: dict[Kernel, str | None] = {
        "gluon": gluon_misfit(*tensors, rule, has_sinks=has_sinks, has_padding=has_padding),
        "hopper": misfit(*tensors, rule),
    }
    for kernel, reason in fitting.items():
        entry = kernel_entry(
            kernel,
            max(q_BHQD.shape[3], v_BGKD.shape[3]),
            q_BHQD.dtype,
            capability_of(q_BHQD.device),
            rule_of(rule, has_padding=has_padding),
        )
        if reason is None and entry is not None and entry.preferred:
            return entry
    return None


def launch_forward(
    q_BHQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    sinks_H: Tensor | None,
    visible_keys_BK: Tensor | None,
    documents_N2: Tensor | None,
    distance_bias_HR: Tensor | None,
    rule: FlashRule,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp by the kernel that is preferred; arguments as `launch_flash_forward`.

    Packed documents and a bias by distance, which the kernels for Hopper know nothing of, are always the
    portable one's.
    """
    tensors = (q_BHQD, k_BGKD, v_BGKD, sinks_H, visible_keys_BK)
    entry = preferred(
        *tensors[:3],
        rule,
        has_sinks=sinks_H is not None,
        has_padding=visible_keys_BK is not None,
    )
    if entry is None or documents_N2 is not None or distance_bias_HR is not None:
        return launch_flash_forward(*tensors, documents_N2, distance_bias_HR, rule)
    if entry.kernel == "gluon":
        # Gluon is an experiment of Triton's: what it changes there must not keep the others from running.
        from attnscope.kernels.triton.flash_gluon import launch_flash_gluon

        return launch_flash_gluon(*tensors[:3], rule, flash_config(entry))
    return launch_flash_hopper(*tensors, rule, hopper_config(entry))
