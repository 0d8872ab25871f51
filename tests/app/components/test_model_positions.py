from typing import get_args

from attnscope.app.components.model_positions import KINDS
from attnscope.models.positions import Kind


def test_every_kind_of_position_has_words() -> None:
    assert set(KINDS) == set(get_args(Kind))
