import json
from pathlib import Path

import pytest
import transformers as hf

from attnscope.kernels.errors import AttnscopeError, ModelNotFound, ModelUnsafe, ModelUnsupported
from attnscope.models import configs

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


def test_a_configuration_is_the_same_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    sources = [
        hf.LlamaConfig(hidden_size=64, num_attention_heads=4),
        LLAMA,
        json.dumps(LLAMA, indent=2),
        str(tmp_path),
        str(tmp_path / "config.json"),
    ]
    read = [configs.read(source) for source in sources]
    assert {config.hidden_size for config in read} == {64}
    assert {config.model_type for config in read} == {"llama"}
    assert configs.read("demo").hidden_size == 256


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("{", ModelUnsupported, "not readable JSON"),
        ("{}", ModelUnsupported, "no model_type"),
        ('{"model_type": "no-such"}', ModelUnsupported, "no-such"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "a.B"}}', ModelUnsafe, "never run"),
        ("{" + " " * (1 << 20) + "}", ModelUnsupported, "over the limit"),
        ("/no/such/folder", ModelNotFound, "config.json"),
        ("../../etc", ModelNotFound, "neither a model"),
        ('{"model_type": "llama", "hidden_size": "wide"}', AttnscopeError, "llama"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(source: str, error: type, words: str) -> None:
    with pytest.raises(error) as refused:
        configs.read(source)
    assert words in str(refused.value) or "configuration" in str(refused.value)
    assert "\n" not in str(refused.value)
