from pathlib import Path

import pytest

from attnscope.app.jobs.calculation_plan import CONFIGS, bundled
from attnscope.models.shape import shape_of

# What the makers publish, or the checkpoints count.
PARAMETERS = {
    "gpt2": 124_439_808,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "gemma-2-9b": 9_241_705_984,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "gpt-oss-20b": 20_914_757_184,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_bundled_configuration_has_the_published_number_of_parameters(name: str) -> None:
    assert name in bundled()
    assert shape_of(Path(CONFIGS / f"{name}.json")).parameters == PARAMETERS[name]
