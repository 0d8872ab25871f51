"""Pooling against a loop over heads, losses against transformers', caches against the calculator."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from attnscope.kernels.errors import (
    AttnscopeError,
    InvalidCall,
    JobCancelled,
    ModelTooLarge,
    ModelUnsupported,
    PromptRefused,
)
from attnscope.models import kv_pooling, uptraining
from attnscope.models.kv_pooling import choices, pool
from attnscope.models.loading import LoadedModel
from attnscope.models.shape import shape_of
from attnscope.models.uptraining import (
    Training,
    cache_bytes,
    compare_poolings,
    held_out_loss,
    uptrain,
)
from attnscope.profiling.calculator import estimate
from tests.models.conftest import DECODERS, tiny, tiny_tokenizer

Family = Callable[[str], LoadedModel]
POOLABLE = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt_oss"]


def rows(count: int = 4, length: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(96, (count, length), generator=torch.Generator().manual_seed(seed))


def multi_head(family: str = "qwen2") -> LoadedModel:
    """A model of four query heads with keys and values of their own, their biases not zero."""
    config = DECODERS[family]()
    config.num_key_value_heads = 4
    model = tiny(config, hf.AutoModelForCausalLM)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("_proj.bias"):
                weight.normal_()
    return LoadedModel.of(model, tiny_tokenizer("left"))


def logits(model: LoadedModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.model(input_ids=ids).logits


@pytest.mark.parametrize("groups", [2, 1])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_pooled_head_is_what_a_loop_over_its_group_says(groups: int, pooling: Any) -> None:
    model = multi_head()
    before, after = (
        one.model.state_dict() for one in (model, pool(model, groups, pooling=pooling))
    )
    changed = [name for name in before if before[name].shape != after[name].shape]
    assert len(changed) == 2 * 2 * 2  # layers, k and v, weight and bias
    for name, weight in before.items():
        if name not in changed:
            assert torch.equal(weight, after[name])
            continue
        for group in range(groups):
            for row in range(8):
                members = [
                    weight[head * 8 + row]
                    for head in range(group * 4 // groups, (group + 1) * 4 // groups)
                ]
                expected = members[0] if pooling == "first" else sum(members) / len(members)
                torch.testing.assert_close(after[name][group * 8 + row], expected)


@pytest.mark.parametrize("family", POOLABLE)
def test_as_many_groups_as_heads_change_nothing(tiny_family: Family, family: str) -> None:
    model = tiny_family(family)
    assert choices(model) == (2, 1)
    same = pool(model, 2)
    assert same.model is not model.model
    assert torch.equal(logits(same, rows()), logits(model, rows()))


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("family", POOLABLE)
def test_heads_that_are_equal_in_a_group_lose_nothing(family: str, pooling: Any) -> None:
    model = multi_head(family)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if ".k_proj." in name or ".v_proj." in name:
                heads = weight.unflatten(0, (2, 2, -1))
                heads[:, 1] = heads[:, 0]
    grouped = pool(model, 2, pooling=pooling)
    assert grouped.model.config.get_text_config().num_key_value_heads == 2
    torch.testing.assert_close(logits(grouped, rows()), logits(model, rows()), rtol=1e-5, atol=1e-5)


def test_random_heads_are_new_and_follow_from_the_seed() -> None:
    model = multi_head()
    name = "model.layers.1.self_attn.k_proj.weight"
    first, again, other = (
        pool(model, 2, pooling="random", seed=seed).model.state_dict()[name] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text"])
def test_the_cache_has_the_bytes_that_the_calculator_says(family: str) -> None:
    model = multi_head(family)
    for one, kv_heads in ((model, 4), (pool(model, 1), 1)):
        told = estimate(
            shape_of(one.model.config), backend="tiled", length=12, dtype="float32", phase="prefill"
        )
        assert cache_bytes(one, 12) == told.cache_tensor_bytes
        assert shape_of(one.model.config).layers[0].kv_heads == kv_heads
    # No window in the way: heads divide the bytes exactly.
    assert cache_bytes(multi_head("llama"), 12) == 2 * 2 * 4 * 12 * 8 * 4


def test_the_loss_is_that_of_transformers(tiny_family: Family) -> None:
    model = tiny_family("llama")
    with torch.no_grad():
        theirs = model.model(input_ids=rows(5), labels=rows(5)).loss
    assert held_out_loss(model, rows(5), rows_at_once=2) == pytest.approx(float(theirs), rel=1e-5)


def test_a_short_training_gives_back_part_of_what_pooling_took() -> None:
    model = multi_head("llama")
    kept = copy.deepcopy(model.model.state_dict())
    shares: list[float] = []
    repeated = rows(2, 4, seed=3).repeat(4, 4)
    found = uptrain(
        model,
        1,
        train_BT=repeated,
        held_out_BT=repeated,
        training=Training(steps=20, batch=3, learning_rate=3e-3),
        progress=lambda share, _: shares.append(share),
    )
    assert found.loss_before == pytest.approx(held_out_loss(model, repeated))
    assert found.loss_pooled == pytest.approx(held_out_loss(pool(model, 1), repeated))
    assert found.loss_after == pytest.approx(held_out_loss(found.model, repeated))
    assert found.loss_after < found.loss_pooled
    assert (found.steps, found.curve[-1][0], shares[-1]) == (20, 20, 1.0)
    assert shares == sorted(shares)
    assert found.cache_bytes_before == 4 * found.cache_bytes_after
    assert found.cache_bytes_saved == found.cache_bytes_before * 3 // 4
    assert all(torch.equal(kept[name], one) for name, one in model.model.state_dict().items())
    assert not found.model.model.training


def test_equal_arguments_train_equal_weights() -> None:
    model = multi_head("llama")

    def trained(seed: int) -> dict[str, Tensor]:
        both: dict[str, Any] = {"train_BT": rows(8), "held_out_BT": rows(1, seed=1)}
        return uptrain(
            model, 2, **both, training=Training(steps=3, batch=3, seed=seed)
        ).model.model.state_dict()

    first, again, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(one, again[name]) for name, one in first.items())
    assert any(not torch.equal(one, other[name]) for name, one in first.items())


def test_training_ends_when_the_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(uptraining.time, "monotonic", lambda: float(next(clock)))
    found = uptrain(
        multi_head("llama"),
        2,
        train_BT=rows(),
        held_out_BT=rows(),
        training=Training(steps=50, seconds=15.0),
    )
    assert found.steps == 2


def test_training_is_cancelled_by_its_progress() -> None:
    def cancel(share: float, step: str) -> None:
        if "step" in step:
            raise JobCancelled(f"{share}")

    with pytest.raises(JobCancelled):
        uptrain(multi_head(), 2, train_BT=rows(), held_out_BT=rows(), progress=cancel)


def test_no_steps_measure_the_poolings_alone() -> None:
    model = multi_head()
    losses = compare_poolings(model, 1, rows())
    assert set(losses) == {"mean", "first", "random"}
    for pooling, loss in losses.items():
        found = uptrain(
            model,
            1,
            train_BT=rows(),
            held_out_BT=rows(),
            pooling=pooling,
            training=Training(steps=0),
        )
        assert (found.loss_pooled, found.loss_after, found.steps) == (loss, loss, 0)


REFUSED = {
    "gpt2": "one fused matrix",
    "opt": "has keys of its own",
    "gpt_neox": "has keys of its own",
    "bert": "has keys of its own",
    "phi3": "no separate k_proj",
    "deepseek_v3": "no separate k_proj",
}


@pytest.mark.parametrize("family", REFUSED)
def test_what_cannot_be_pooled_says_why(tiny_family: Family, family: str) -> None:
    with pytest.raises(ModelUnsupported, match=REFUSED[family]) as caught:
        pool(tiny_family(family), 1)
    assert caught.value.remedy


def test_a_norm_over_all_keys_is_refused_by_its_name() -> None:
    config = hf.Olmo2Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    model = LoadedModel.of(tiny(config, hf.AutoModelForCausalLM), tiny_tokenizer())
    with pytest.raises(ModelUnsupported, match="k_norm"):
        pool(model, 2)


WRONG: list[tuple[dict[str, Any], type[AttnscopeError], str]] = [
    ({"groups": 3}, InvalidCall, "4 kv heads cannot be pooled into 3"),
    ({"groups": 0}, InvalidCall, "into 0 groups"),
    ({"pooling": "sum"}, InvalidCall, "No pooling 'sum'"),
    ({"training": {"steps": -1}}, InvalidCall, "got -1"),
    ({"training": {"batch": 0}}, InvalidCall, "above 0"),
    ({"training": {"seconds": 0.0}}, InvalidCall, "above 0"),
    ({"training": {"learning_rate": float("nan")}}, InvalidCall, "above 0"),
    ({"training": {"learning_rate": 1e30}}, InvalidCall, "Lower the learning rate"),
    ({"train_BT": rows(0)}, PromptRefused, r"got \[0, 16\]"),
    ({"held_out_BT": rows(2, 1)}, PromptRefused, "2 tokens or more"),
    ({"train_BT": rows(2, 65)}, PromptRefused, "reads 64"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG)
def test_what_has_no_meaning_is_refused(
    wrong: dict[str, Any], error: type[AttnscopeError], words: str
) -> None:
    given: dict[str, Any] = {"groups": 2, "train_BT": rows(), "held_out_BT": rows()} | wrong
    shortened = {"steps": 4} | given.pop("training", {})
    with pytest.raises(error, match=words):
        uptrain(multi_head("llama"), **given, training=Training(**shortened))


def test_sixteen_bits_and_too_little_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = multi_head("llama")
    half = LoadedModel.of(copy.deepcopy(model.model).bfloat16(), model.tokenizer)
    given: dict[str, Any] = {"train_BT": rows(), "held_out_BT": rows()}
    with pytest.raises(ModelUnsupported, match="bfloat16, whose steps are too coarse"):
        uptrain(half, 2, **given)
    assert uptrain(half, 2, **given, training=Training(steps=0)).loss_pooled > 0
    monkeypatch.setattr(kv_pooling, "available_bytes", lambda _: model.parameters * 16 - 1)
    with pytest.raises(ModelTooLarge, match="Training it takes"):
        uptrain(model, 2, **given)
