import pytest

from attnscope.app.figures.cache import cache_growth
from attnscope.app.figures.theme import LIGHT


@pytest.mark.parametrize(
    ("held", "unit", "drawn"),
    [
        ([512, 1023], "bytes", [512, 1023]),
        ([2**20, 3 * 2**20], "MiB", [1, 3]),
        ([2048], "KiB", [2]),
    ],
)
def test_bytes_are_drawn_in_their_unit_beside_what_was_predicted(held, unit, drawn):
    figure = cache_growth(held, held, look=LIGHT)
    assert figure.layout.yaxis.title.text == unit
    assert [list(trace.y) for trace in figure.data] == [drawn, drawn]
    assert len(cache_growth(held, None, look=LIGHT).data) == 1


def test_as_a_file_it_says_what_it_is():
    figure = cache_growth([1], None, look=LIGHT, title="KV <cache>", note="of a model")
    assert figure.layout.title.text == "KV &lt;cache&gt;"
