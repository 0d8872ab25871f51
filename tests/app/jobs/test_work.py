import json
from itertools import pairwise

import pytest
import torch
import transformers as hf

from attnscope.app.jobs import answers, work
from attnscope.app.jobs.context import Context, Resources
from attnscope.app.settings import Settings
from attnscope.kernels.errors import (
    CaptureTooLarge,
    InvalidCall,
    JobCancelled,
    ModelNotFound,
    PromptRefused,
)
from attnscope.models.loading import LoadedModel
from attnscope.models.shelf import ModelShelf
from tests.models.conftest import tiny, tiny_tokenizer

TEMPLATE = "{% for m in messages %}a{{ m['content'] }}b{% endfor %}"


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    config = hf.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LoadedModel.of(
        tiny(config, hf.AutoModelForCausalLM), tiny_tokenizer(), source="some/model", revision="abc"
    )


@pytest.fixture
def told():
    return []


@pytest.fixture
def context(tmp_path, model, told):
    context = Context(
        settings=Settings(data=tmp_path), device="cpu", resources=Resources(), report=told.append
    )
    context.resources.get("models", lambda: ModelShelf(loader=lambda *_, **__: model))
    return context


def arguments(**changed):
    return {"source": "some/model", "texts": ["abc abd abc"], "backend": "eager", **changed}


def test_an_inspection_leaves_a_capture_that_answers(context, told):
    result = json.loads(json.dumps(work.inspect(arguments(), context)))

    assert result["kept"] is False
    assert result["summary"]["layers"][1]["heads"] == 4
    assert result["model"]["max_length"] == 64
    header = answers.attention_map(
        {"capture": result["capture_id"], "layer": 1, "head": 2}, context
    )["header"]
    assert header["rows"] == result["summary"]["sequences"][0]["length"]
    assert [each.step for each in told][-1] == "Saving the capture"
    assert all(one.share <= after.share for one, after in pairwise(told))


def test_the_same_prompt_is_inspected_once(context):
    first = work.inspect(arguments(), context)
    again = work.inspect(arguments(), context)
    other = work.inspect(arguments(texts=["another"]), context)

    assert (again["capture_id"], again["kept"]) == (first["capture_id"], True)
    assert other["capture_id"] != first["capture_id"]


def test_a_plan_states_what_the_capture_then_holds(context):
    planned = work.plan(arguments(), context)
    made = work.inspect(arguments(), context)

    assert planned["total_bytes"] == made["summary"]["nbytes"]
    one = work.plan(arguments(texts=["a"]), context)
    assert made["model"]["bytes_per_token"] * sum(one["lengths"]) == one["total_bytes"]
    assert planned["lengths"] == [made["summary"]["sequences"][0]["length"]]
    assert planned["budget_bytes"] > planned["total_bytes"]


def test_chosen_layers_only(context):
    result = work.inspect(arguments(layers=[1]), context)
    assert [layer["index"] for layer in result["summary"]["layers"]] == [1]


def test_some_layers_run_on_another_backend(context):
    result = work.inspect(arguments(layer_backends={"1": "tiled"}), context)
    assert [layer["backend"] for layer in result["summary"]["layers"]] == ["eager", "tiled"]
    assert work.inspect(arguments(), context)["capture_id"] != result["capture_id"]
    with pytest.raises(InvalidCall, match="no layer 2"):
        work.inspect(arguments(layer_backends={"2": "tiled"}), context)


def test_a_capture_over_the_budget_is_refused_before_it_runs(context):
    with pytest.raises(CaptureTooLarge):
        work.inspect(arguments(byte_budget=10), context)


def test_a_chat_template_is_put_round_the_prompt_or_refused(context, model, monkeypatch):
    with pytest.raises(PromptRefused, match="no chat template"):
        work.inspect(arguments(chat=True), context)
    monkeypatch.setattr(model.tokenizer, "chat_template", TEMPLATE)
    plain, chat = work.inspect(arguments(), context), work.inspect(arguments(chat=True), context)

    tokens = "".join(chat["summary"]["sequences"][0]["tokens"])
    assert tokens.startswith("a")
    assert tokens.endswith("b")
    assert plain["capture_id"] != chat["capture_id"]


def test_a_cancelled_inspection_leaves_nothing(context, tmp_path):
    context.stop.set()
    with pytest.raises(JobCancelled):
        work.inspect(arguments(), context)
    assert not list(tmp_path.rglob("capture.json"))


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("demo", False),
        ("openai-community/gpt2", False),
        ("{allowed}/a/model", False),
        ("{allowed}/../elsewhere", True),
        ("{allowed}-too/model", True),
        ("/etc", True),
        ("./assets", True),
    ],
)
def test_a_shared_server_keeps_to_its_model_folders(tmp_path, source, refused):
    allowed = tmp_path / "models"
    named = source.format(allowed=allowed)
    work.refuse_folder(named, ())
    if refused:
        with pytest.raises(ModelNotFound, match="only from"):
            work.refuse_folder(named, (str(allowed),))
    else:
        assert work.refuse_folder(named, (str(allowed),)) is None


def test_loading_says_what_the_model_is(context):
    facts = work.load(arguments(), context)
    assert (facts["layers"], facts["revision"], facts["has_chat_template"]) == (2, "abc", False)
    assert facts["nbytes"] > 0
