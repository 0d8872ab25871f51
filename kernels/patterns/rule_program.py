"""A rule in a person's words, read into a list of steps: no code of theirs is ever run.

The text is first cut into the few tokens there are, then parsed by Python's own grammar, then
written as steps in postfix order. What a step does is told by who carries it out: on tensors, or
on bounds.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any, Literal

from attnscope.kernels.errors import UnknownPattern

MOST_CHARACTERS = 1000
MOST_NUMBER = 2**31 - 1
MOST_DEPTH = 40

Step = tuple[str, int]
"""What is done, and the number that `number` puts on the stack."""

Kind = Literal["number", "truth"]

_KNOWN = (
    "A rule is made of i (the query), j (the key), whole numbers, + - * // %, comparisons, "
    "and, or, not, abs, min, max and parentheses."
)
_NAMES = {"i", "j", "and", "or", "not", "abs", "min", "max"}
_TOKEN = re.compile(
    r"\s+|(?P<number>[0-9]+)|(?P<name>[^\W0-9]\w*)"
    r"|(?P<sign>//|[<>=!]=|[-+%<>(),]|\*(?!\*))|(?P<other>\*\*|.)",
    re.DOTALL,
)
_HINTS = {
    "**": "Write i * i for a power.",
    "/": "Write // for a whole quotient.",
    "=": "Write == for equality.",
    "&": "Write and.",
    "|": "Write or.",
    "!": "Write not, or !=.",
    "n": "A rule holds at every length, so it does not know it: write a number.",
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}


def steps_of(text: str) -> tuple[Step, ...]:
    """The steps of a rule.

    Args:
        text: One expression of i and j that is true or false, on any number of lines.

    Raises:
        UnknownPattern: It is none; says what is wrong with it and what a rule is made of.
    """
    _check_tokens(text)
    text = " ".join(text.split())
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = getattr(error, "offset", None)
        where = f" at character {at}" if at else ""
        raise UnknownPattern(f"The rule cannot be read{where}: {_shown(text)}.", _KNOWN) from error
    writer = _Writer()
    if writer.write(tree, 0) != "truth":
        raise UnknownPattern(
            f"The rule gives a number, not yes or no: {_shown(text)}.",
            "Compare it with something, such as i - j < 128.",
        )
    if not {"i", "j"} & {name for name, _ in writer.steps}:
        raise UnknownPattern(
            f"The rule speaks of neither i nor j: {_shown(text)}.",
            "Use the pattern full or causal.",
        )
    return tuple(writer.steps)


def carried_out(
    steps: tuple[Step, ...], does: Mapping[str, Callable[..., Any]], i: Any, j: Any
) -> Any:
    """What is left on the stack once every step was taken.

    Args:
        steps: Of `steps_of`.
        does: A function for each of their names, of one value or of two.
        i: What stands for the query.
        j: What stands for the key.
    """
    stack: list[Any] = []
    for name, number in steps:
        if name == "i":
            stack.append(i)
        elif name == "j":
            stack.append(j)
        elif name == "number":
            stack.append(does[name](number))
        elif name in ("not", "abs", "negative"):
            stack.append(does[name](stack.pop()))
        else:
            last = stack.pop()
            stack.append(does[name](stack.pop(), last))
    return stack.pop()


class _Writer:
    """Writes the steps of a tree, and refuses what is not in the language."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def write(self, node: ast.AST, depth: int) -> Kind:
        """Write a node's steps; says what they leave on the stack."""
        if depth > MOST_DEPTH:
            raise UnknownPattern(
                f"The rule is nested more than {MOST_DEPTH} deep.",
                "Write it with fewer parentheses and signs.",
            )
        match node:
            case ast.Name(id="i" | "j" as name):
                return self._wrote(name)
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                self.steps.append(("number", number))
                return "number"
            case ast.BinOp(left=left, op=op, right=right):
                self._numbers([left, right], depth)
                return self._wrote(_ARITHMETIC[type(op)])
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                self._truths([inner], depth)
                return self._wrote("not", "truth")
            case ast.UnaryOp(op=op, operand=inner):
                self._numbers([inner], depth)
                return self._wrote("negative") if isinstance(op, ast.USub) else "number"
            case ast.BoolOp(op=op, values=values):
                return self._joined("and" if isinstance(op, ast.And) else "or", values, depth)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._compared(
                    [left, *others], [_COMPARISONS[type(op)] for op in ops], depth
                )
            case ast.Call(func=ast.Name(id="abs" | "min" | "max" as name), args=given, keywords=[]):
                return self._called(name, given, depth)
        raise UnknownPattern("The rule holds what is no part of one.", _KNOWN)

    def _wrote(self, name: str, kind: Kind = "number") -> Kind:
        self.steps.append((name, 0))
        return kind

    def _numbers(self, nodes: list[ast.expr], depth: int) -> None:
        for node in nodes:
            if self.write(node, depth + 1) != "number":
                raise UnknownPattern(
                    f"The rule uses yes or no as a number: {_shown(ast.unparse(node))}.",
                    "Join conditions by and, or, not.",
                )

    def _truths(self, nodes: list[ast.expr], depth: int) -> None:
        for node in nodes:
            if self.write(node, depth + 1) != "truth":
                raise UnknownPattern(
                    f"The rule uses a number as yes or no: {_shown(ast.unparse(node))}.",
                    "Compare it with something, such as j % 3 == 0.",
                )

    def _joined(self, name: str, nodes: list[ast.expr], depth: int) -> Kind:
        self._truths(nodes[:1], depth)
        for node in nodes[1:]:
            self._truths([node], depth)
            self._wrote(name)
        return "truth"

    def _compared(self, nodes: list[ast.expr], names: list[str], depth: int) -> Kind:
        for place, name in enumerate(names):
            # What stands between two comparisons is worked out for both.
            self._numbers(nodes[place : place + 2], depth)
            self._wrote(name)
            if place:
                self._wrote("and")
        return "truth"

    def _called(self, name: str, given: list[ast.expr], depth: int) -> Kind:
        wrong = len(given) != 1 if name == "abs" else len(given) < 2
        if wrong:
            many = "one number" if name == "abs" else "two numbers or more"
            raise UnknownPattern(
                f"{name} takes {many}, got {len(given)}.", "Write abs(i - j) or min(i, j)."
            )
        self._numbers(given[:1], depth)
        if name == "abs":
            return self._wrote(name)
        for node in given[1:]:
            self._numbers([node], depth)
            self._wrote(name)
        return "number"


def _check_tokens(text: object) -> None:
    """Refuses what is too long, too deep or made of other tokens, before anything parses it."""
    if not isinstance(text, str):
        raise UnknownPattern(f"A rule is a text, got {text!r:.60}.", _KNOWN)
    if len(text) > MOST_CHARACTERS:
        raise UnknownPattern(
            f"The rule has {len(text)} characters, and {MOST_CHARACTERS} is the limit.",
            "Upload a matrix for a mask that needs more.",
        )
    if not text.strip():
        raise UnknownPattern("The rule is empty.", _KNOWN)
    for found in _TOKEN.finditer(text):
        _check_token(found)
    nesting = _nesting(text)
    if nesting > MOST_DEPTH:
        raise UnknownPattern(
            f"The rule is nested {nesting} deep, and {MOST_DEPTH} is the limit.",
            "Write it with fewer parentheses.",
        )


def _check_token(found: re.Match[str]) -> None:
    word, kind = found.group(), found.lastgroup
    if kind == "number":
        following = found.string[found.end() : found.end() + 1]
        if int(word[:11]) > MOST_NUMBER:
            raise UnknownPattern(
                f"The rule's number {_shown(word)} is too large.", f"The limit is {MOST_NUMBER}."
            )
        if following.isalnum() or following in ("_", "."):
            raise UnknownPattern(
                f"The rule holds {_shown(word + following)}, which is no whole number.", _KNOWN
            )
    elif kind == "other" or (kind == "name" and word not in _NAMES):
        raise UnknownPattern(f"The rule holds “{_shown(word)}”.", _HINTS.get(word, _KNOWN))


def _nesting(text: str) -> int:
    def depths() -> Iterator[int]:
        depth = 0
        for sign in re.findall(r"[()]", text):
            depth += 1 if sign == "(" else -1
            yield depth

    return reduce(max, depths(), 0)


def _shown(text: str, length: int = 60) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * length]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
