"""The forward kernel in Gluon that ships, in every configuration that `tuned.toml` has for it."""

from collections.abc import Iterator

from attnscope.kernels.call import AttentionCall
from attnscope.kernels.triton.configurations import flash_config, kernel_entry
from attnscope.kernels.triton.flash_choice import rule_of
from attnscope.kernels.triton.flash_gluon import launch_flash_gluon
from attnscope.kernels.triton.flash_rule import flash_rule
from attnscope.kernels.triton.shipped.entry import PLAIN, Shipped, call_of, entry_of, tensors_of

CAPABILITIES = (90,)
"""Hopper's."""

WANTS = ("bulk_copies", "setmaxnreg")


def flash_gluons() -> Iterator[Shipped]:
    """By width and rule."""
    for head_dim in (64, 128):
        for title, rule in PLAIN.items():
            yield _entry(title, call_of(head_dim, **rule))
    # Keys that do not fill their tiles, which are masked where others are not.
    yield _entry("full, 4000 keys", call_of(128, **PLAIN["full"], key_length=4000))
    yield _entry("causal", call_of(128, "float16"))


def _entry(title: str, call: AttentionCall) -> Shipped:
    return entry_of("flash_gluon", _launch, title, call, capabilities=CAPABILITIES, wants=WANTS)


def _launch(call: AttentionCall, capability: int) -> None:
    del capability  # The one there is.
    rule = flash_rule(call)
    assert rule is not None, "only what the kernel takes is listed"
    kind = rule_of(rule, has_padding=False)
    entry = kernel_entry("gluon", call.head_dim, call.torch_dtype, (9, 0), kind)
    assert entry is not None, f"tuned.toml has no entry for {call}"
    launch_flash_gluon(*tensors_of(call), rule, flash_config(entry))
