import pytest

from attnscope.app.layer_backends import read, written
from attnscope.kernels.errors import InvalidCall


@pytest.mark.parametrize(
    ("text", "layers", "again"),
    [
        ("", (), ""),
        (" 5: eager ", ((5, "eager"),), "5: eager"),
        (
            "2: sdpa_math; 0-1: tiled",
            ((0, "tiled"), (1, "tiled"), (2, "sdpa_math")),
            "0-1: tiled, 2: sdpa_math",
        ),
        (
            "0:flex,1 - 1 :flex,3:flex",
            ((0, "flex"), (1, "flex"), (3, "flex")),
            "0-1: flex, 3: flex",
        ),
    ],
)
def test_layers_and_their_backends(text: str, layers: tuple, again: str) -> None:
    assert read(text) == layers
    assert written(layers) == again
    assert read(written(layers)) == layers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiled", "“tiled” names no layers"),
        ("0-: tiled", "“0-: tiled”"),
        ("3-1: tiled", "backwards"),
        ("0-2: tiled, 2: eager", "Layer 2 is given two"),
        ("99999: tiled", "“99999: tiled”"),
        ("0: " + "x" * 500, "“0: xxx"),
    ],
)
def test_what_is_neither_is_refused_with_an_example(text: str, said: str) -> None:
    with pytest.raises(InvalidCall, match=said) as caught:
        read(text)
    assert "0-3: tiled" in caught.value.remedy
    assert len(str(caught.value)) < 250
