import re
from itertools import islice
from random import Random

import pytest

from attnscope.models.demo_text import code, lexicon, lists
from attnscope.models.demo_text.documents import KINDS, document, document_stream

WRITERS = [
    pytest.param(kind, index, id=writer.__name__)
    for kind, (writers, _) in KINDS.items()
    for index, writer in enumerate(writers)
]


@pytest.mark.parametrize(("kind", "index"), WRITERS)
def test_every_writer_is_a_function_of_its_seed(kind: str, index: int) -> None:
    writer = KINDS[kind][0][index]
    assert writer(Random(5)) == writer(Random(5))
    assert len({writer(Random(seed)) for seed in range(20)}) == 20


@pytest.mark.parametrize(("kind", "index"), WRITERS)
def test_every_writer_leaves_clean_text(kind: str, index: int) -> None:
    for seed in range(100):
        text = KINDS[kind][0][index](Random(seed))
        assert text == text.strip()
        assert text.isascii()
        assert not re.search(r"\ba [aeiou]\w", text.lower().replace("a user", ""))
        if kind != "code":
            assert not re.search(r"[{}]|  |\.\.|\.\"\ssaid|,,| ,", text), text


@pytest.mark.parametrize("kind", ["story", "talk", "list", "code", "repeated words"])
def test_names_and_phrases_come_back(kind: str) -> None:
    for seed in range(50):
        text = document(Random(seed), kind)
        found = re.findall(r"\w{4,}", text)
        assert len(found) > 1.15 * len(set(found)), text


def test_shares_are_a_distribution() -> None:
    assert sum(share for _, share in KINDS.values()) == pytest.approx(1.0)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        document(Random(0), "poem")


def test_held_out_streams_differ_from_training_streams() -> None:
    training = {text for seed in range(5) for text in islice(document_stream(seed), 200)}
    held_out = list(islice(document_stream(0, held_out=True), 200))
    assert list(islice(document_stream(3), 5)) == list(islice(document_stream(3), 5))
    # Short sums can coincide; whole documents otherwise do not.
    assert sum(text in training for text in held_out) <= 2


@pytest.mark.parametrize("writer", [lists.sums, lists.counting, lists.word_problem])
def test_sums_are_right(writer) -> None:
    for seed in range(100):
        for left, operator, right, result in re.findall(
            r"(\d+) ([-+x]) (\d+) = (\d+)", writer(Random(seed))
        ):
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "x": a * b}[operator] == int(result)


def test_what_a_shop_charges_is_right() -> None:
    for seed in range(50):
        text = lists.inventory(Random(seed))
        match = re.search(r"paid (\d+) \+ (\d+) = (\d+) coins?\.", text)
        assert match is not None
        left, right, total = map(int, match.groups())
        assert left + right == total


def test_programs_print_what_they_claim() -> None:
    for seed in range(40):
        text = code.function_and_calls(Random(seed))
        program, session = text.split("\n\n", 1)
        scope: dict[str, object] = {}
        exec(program, scope)
        lines = session.splitlines()
        for call, printed in zip(lines[::2], lines[1::2], strict=True):
            assert str(eval(call.removeprefix(">>> "), scope)) == printed


@pytest.mark.parametrize("writer", [code.record_class, code.lookup, code.loop_output])
def test_programs_run_and_print_what_their_comments_say(writer, capsys) -> None:
    for seed in range(40):
        text = writer(Random(seed))
        exec(text, {})
        said = [line[2:] for line in text.splitlines() if line.startswith("# ")]
        said = [line for line in said if line != "This prints:"]
        assert capsys.readouterr().out.splitlines() == said


def test_names_are_invented_and_rarely_meet() -> None:
    rng = Random(0)
    names = [lexicon.invented_name(rng) for _ in range(2000)]
    assert len(set(names)) > 1900
    assert all(re.fullmatch(r"[A-Z][a-z]{3,14}", name) for name in names)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("owl", "an owl"), ("red kite", "a red kite"), ("iron box", "an iron box")],
)
def test_article(phrase: str, expected: str) -> None:
    assert lexicon.an(phrase) == expected


@pytest.mark.parametrize(
    ("parts", "expected"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_listing(parts: list[str], expected: str) -> None:
    assert lexicon.listing(parts) == expected
