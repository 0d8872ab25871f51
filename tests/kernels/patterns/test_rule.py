"""Rules against Python's own evaluation of the same text, pair by pair."""

import random
import warnings

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from attnscope.kernels.errors import InvalidCall, UnknownPattern
from attnscope.kernels.patterns.catalogue import pattern
from attnscope.kernels.patterns.pattern import EMPTY, FULL, PARTIAL
from attnscope.kernels.patterns.rule import Rule
from attnscope.kernels.patterns.rule_bounds import holds
from attnscope.kernels.patterns.rule_program import MOST_CHARACTERS

LENGTH = 24
WRITTEN = [
    "i - j < 5 or j < 2 or (i // 4 == j // 4 and j % 3 == 0)",
    "j <= i",
    "not i == j",
    "abs(i - j) <= 3",
    "0 <= i - j < 6 != j",
    "min(i, j, 7) % 2 == max(3, j) % 2",
    "-i * -3 % -7 == -2",
    "i // (0 - 3) < -4 or (i + 1) % (j + 1) == 0",
    "(j - i) // 5 == -1",
    "2 < 1 or j > i",
    "i * i + j * j < 200 and not (j == 3 or j == 5)",
    "+j == 3",
    "max(1, 2) * 4 % 3 <= j % min(4, 6)",
]


def evaluated(text: str, queries: range = range(LENGTH), keys: range = range(LENGTH)) -> np.ndarray:
    code = compile(text, "rule", "eval")
    known = {"__builtins__": {}, "abs": abs, "min": min, "max": max}
    return np.array([[bool(eval(code, known, {"i": i, "j": j})) for j in keys] for i in queries])


def seen(rule: Rule, queries: range = range(LENGTH), keys: range = range(LENGTH)) -> np.ndarray:
    rows, columns = (torch.arange(each.start, each.stop) for each in (queries, keys))
    return rule.visible(rows[:, None], columns[None]).numpy()


@pytest.mark.parametrize("text", WRITTEN)
def test_means_what_python_means(text: str) -> None:
    found = seen(Rule(text=text))
    assert found.dtype == np.bool_
    assert np.array_equal(found, evaluated(text))


@pytest.mark.parametrize("text", WRITTEN)
@pytest.mark.parametrize("block", [3, 16])
def test_the_block_mask_is_that_of_the_pairs(text: str, block: int) -> None:
    pairs = evaluated(text, range(5, 5 + 40), range(45))
    mask = Rule(text=text).block_mask(40, 45, block, query_offset=5)
    for row, column in np.ndindex(mask.shape):
        cell = pairs[row * block : (row + 1) * block, column * block : (column + 1) * block]
        meant = FULL if cell.all() else PARTIAL if cell.any() else EMPTY
        assert mask[row, column] == meant


def test_far_positions_are_those_of_python_too() -> None:
    queries, keys = range(2**31 - 9, 2**31), range(2**31 - 40, 2**31 - 20)
    for text in ("i * i - j * j < 3 * i", "(i * 2 - j) % 1000003 < 500", "i * j // 7 % 2 == 0"):
        assert np.array_equal(seen(Rule(text=text), queries, keys), evaluated(text, queries, keys))


def _number(chance: random.Random, depth: int) -> str:
    if depth == 0 or chance.random() < 0.25:
        return chance.choice(["i", "j", "i", "j", str(chance.randrange(9))])
    one, other = _number(chance, depth - 1), _number(chance, depth - 1)
    return chance.choice(
        [
            f"({one} {chance.choice('+-*')} {other})",
            f"{chance.choice(['min', 'max'])}({one}, {other})",
            f"abs({one})",
            f"(-{one})",
            f"({one}) {chance.choice(['//', '%'])} {chance.choice([-5, -2, 1, 3, 8])}",
            f"({one}) % (abs({other}) + 1)",
        ]
    )


def _truth(chance: random.Random, depth: int) -> str:
    if depth == 0 or chance.random() < 0.3:
        sign = chance.choice(["<", "<=", ">", ">=", "==", "!="])
        return f"{_number(chance, 2)} {sign} {_number(chance, 2)}"
    one, other = _truth(chance, depth - 1), _truth(chance, depth - 1)
    return chance.choice([f"({one}) and {other}", f"{one} or ({other})", f"not ({one})"])


def test_any_rule_that_is_taken_means_what_python_means_and_its_bounds_are_true() -> None:
    chance, refusals = random.Random(0), set()
    for _ in range(400):
        text = _truth(chance, 3)
        try:
            rule = Rule(text=text)
        except UnknownPattern as error:
            refusals.add(error.message.partition(":")[0])
            continue
        pairs = evaluated(text)
        assert np.array_equal(seen(rule), pairs), text
        starts = np.arange(0, LENGTH, 6)
        edges = (starts[:, None], starts[:, None] + 5), (starts[None], starts[None] + 5)
        every, some = holds(rule._steps, *edges)
        cells = pairs.reshape(4, 6, 4, 6)
        assert not (np.broadcast_to(every, (4, 4)) & ~cells.all((1, 3))).any(), text
        assert not (~np.broadcast_to(some, (4, 4)) & cells.any((1, 3))).any(), text
        assert np.count_nonzero(pairs) == rule.kept_pairs(LENGTH, LENGTH)
    assert refusals == {
        "The rule's numbers leave 64 bits at large positions.",
        "The rule speaks of neither i nor j",
    }


def test_no_text_raises_anything_but_our_error_or_runs_anything() -> None:
    chance = random.Random(1)
    pieces = [
        *"ij0159+-*/%<>=!()[]{}.,:;'\"\\@&|^~`$?#_ \n\t\0é٣",
        *["and", "or", "not", "abs(", "min(", "max(", "//", "**", "<=", "==", "lambda", "if", "in"],
        *[
            "is",
            "None",
            "True",
            "n",
            "i.",
            "__class__",
            "import os",
            "print(1)",
            "0x1",
            "1e9",
            "1j",
        ],
        *["99999999999999999999", "i:=3", "*i", "f'{i}'", "\ud800", "for", "not in", "await "],
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4000):
            text = "".join(chance.choice(pieces) for _ in range(chance.randrange(1, 12)))
            try:
                rule = Rule(text=text)
            except UnknownPattern:
                continue
            assert np.array_equal(seen(rule), evaluated(" ".join(text.split()))), text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The rule is empty"),
        (None, "A rule is a text, got None"),
        ("i - j", "gives a number, not yes or no: i - j"),
        ("1 < 2", "neither i nor j"),
        ("i ** 2 < j", "Write i \\* i for a power"),
        ("i / 2 < j", "Write // for a whole quotient"),
        ("i = j", "Write == for equality"),
        ("i < n", "does not know it: write a number"),
        ("i.real < j", "holds “.”. A rule is made of i"),
        ("__import__('os').system('true')", "holds “__import__”"),
        ("pow(i, 2) < j", "holds “pow”"),
        ("i <", "The rule cannot be read"),
        ("i < j) (", "The rule cannot be read at character 6"),
        ("(i, j) == 3", "holds what is no part of one"),
        ("min(i, key=j) < 3", "holds “key”"),
        ("min(*i, j) < 3", "holds what is no part of one"),
        ("i(j) < 3", "holds what is no part of one"),
        ("abs(i, j) < 3", "abs takes one number, got 2"),
        ("min(i) < j", "min takes two numbers or more, got 1"),
        ("i < (j < 3)", "uses yes or no as a number: j < 3"),
        ("i and j < 3", "uses a number as yes or no: i"),
        ("0x10 < i", "holds 0x, which is no whole number"),
        ("i < 1.5", "holds 1., which is no whole number"),
        ("i < 99999999999999", "number 99999999999999 is too large"),
        ("i % j == 0", "divides by what can be zero"),
        ("5 // (i - 3) < j", "divides by what can be zero"),
        ("i % 0 == j", "divides by what can be zero"),
        ("i * j * i < 3", "leave 64 bits"),
        ("(" * 41 + "i" + ")" * 41 + " < j", "nested 41 deep, and 40 is the limit"),
        ("not " * 41 + "i < j", "nested more than 40 deep"),
        ("-" * 60 + "i < j", "nested more than 40 deep"),
    ],
)
def test_what_is_no_rule_is_refused_in_a_sentence(text, said: str) -> None:
    with pytest.raises(UnknownPattern, match=said):
        Rule(text=text)


def test_a_text_of_ten_megabytes_is_refused_before_it_is_read(monkeypatch) -> None:
    def read(*_, **__):
        raise AssertionError("it was parsed")

    monkeypatch.setattr("ast.parse", read)
    with pytest.raises(UnknownPattern, match=f"10000006 characters, and {MOST_CHARACTERS}"):
        Rule(text="i < j " + "1" * 10**7)


def test_equal_texts_are_equal_rules_however_they_are_spaced() -> None:
    one = pattern("rule", text="i - j\n  < 4", causal=True)
    assert one == pattern("rule", text="i - j < 4", causal=True)
    assert hash(one) == hash(pattern("rule", text="i - j < 4", causal=True))
    assert one.title == "rule (i - j < 4), causal"


def test_positions_below_zero_are_refused() -> None:
    with pytest.raises(InvalidCall, match="these go from -7 to 4"):
        Rule(text="i < j").kept_pairs(12, 5)


def test_a_kernel_visits_only_cells_of_keys_that_may_hold() -> None:
    rule = Rule(text="i - j < 200 and j <= i or j < 4")
    assert rule.key_spans(1000, 1064, 4096) == ((0, 64), (768, 1088))
    assert rule.full_key_spans(1000, 1064, 4096) == ((896, 960),)


def test_a_mask_of_the_longest_text_is_drawn_from_bounds_and_a_few_pairs(monkeypatch) -> None:
    asked = []
    original = Rule.visible

    def counted(self, query_index, key_index):
        found = original(self, query_index, key_index)
        asked.append(found.numel())
        return found

    monkeypatch.setattr(Rule, "visible", counted)
    n, block = 131_072, 1024
    mask = Rule(text="i - j < 4096 and j <= i or j % 64 == 3").block_mask(n, n, block)
    assert sum(asked) < n * n / 100
    assert mask[100, 0] == PARTIAL
    assert mask[100, 99] == FULL
    assert mask[0, 100] == PARTIAL


def test_of_a_single_pair_nothing_is_expanded_for_a_compiler_that_cannot() -> None:
    rule = pattern("rule", text="i - j < 64 and j <= i or j % 32 == 0")
    traced = make_fx(lambda i, j: rule.visible(i, j))(torch.tensor(70), torch.tensor(64))
    assert "expand" not in traced.code
    assert bool(traced(torch.tensor(70), torch.tensor(7)))
    assert not bool(traced(torch.tensor(70), torch.tensor(6)))
