"""The forward kernel for Hopper that ships, in every configuration that `tuned.toml` has for it."""

from collections.abc import Iterator

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.triton.configurations import hopper_config, kernel_entry
from attnscope.kernels.triton.flash_choice import rule_of
from attnscope.kernels.triton.flash_hopper import launch_flash_hopper
from attnscope.kernels.triton.flash_rule import flash_rule
from attnscope.kernels.triton.shipped.entry import (
    EVERYTHING,
    MODIFIED,
    PLAIN,
    Shipped,
    call_of,
    entry_of,
    extras_of,
    tensors_of,
)
from attnscope.kernels.triton.tuned import Rule, Tuned

CAPABILITIES = (90,)
"""Hopper's."""


def flash_hoppers() -> Iterator[Shipped]:
    """By width and rule, and with every modifier; each has bulk copies, and what its entry promises."""
    for head_dim in (64, 128, 256):
        for title, rule in PLAIN.items():
            yield _entry(title, call_of(head_dim, **rule))
        for title in ("softcap", "sink logits"):
            yield _entry(title, call_of(head_dim, **MODIFIED[title]))
    for head_dim in (64, 128):
        for title in ("padding", EVERYTHING):
            yield _entry(title, call_of(head_dim, **MODIFIED[title]))
    # Keys that do not fill their tiles, which are masked where others are not.
    yield _entry("full, 4000 keys", call_of(128, **PLAIN["full"], key_length=4000))
    yield _entry("causal", call_of(128, "float16"))
    yield _entry("causal", call_of(96))


def _entry(title: str, call: AttentionCall) -> Shipped:
    wants = ("bulk_copies", "setmaxnreg") if _tuned(call).specialized else ("bulk_copies",)
    return entry_of("flash_hopper", _launch, title, call, capabilities=CAPABILITIES, wants=wants)


def _launch(call: AttentionCall, capability: int) -> None:
    del capability  # The one there is.
    extras = extras_of(call)
    rule = flash_rule(call)
    assert rule is not None, "only what the kernel takes is listed"
    launch_flash_hopper(
        *tensors_of(call),
        extras["sinks_H"],
        extras["visible_keys_BK"],
        rule,
        hopper_config(_tuned(call)),
    )


def _tuned(call: AttentionCall) -> Tuned:
    rule = flash_rule(call)
    assert rule is not None, "only what the kernel takes is listed"
    kind: Rule = rule_of(rule, has_padding=call.has_padding)
    width = max(call.head_dim, call.value_dim)
    found = kernel_entry("hopper", width, call.torch_dtype, (9, 0), kind)
    assert found is not None, f"tuned.toml has no entry for {call}"
    return found
