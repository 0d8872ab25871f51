"""Small Python-like programs with invented identifiers, and what they print."""

from random import Random

from attnscope.models.demo_text import lexicon as words
from attnscope.models.demo_text.lexicon import an, pick


def _identifier(rng: Random) -> str:
    return f"{words.invented_word(rng, 2)}_{pick(rng, NOUNS)}"


NOUNS = ("count", "list", "total", "items", "name", "size", "value", "index", "price", "weight")


def function_and_calls(rng: Random) -> str:
    """One function over a list, and a session in which it is called."""
    name, argument = _identifier(rng), words.invented_word(rng, 2)
    title, body, compute = FUNCTIONS[rng.randrange(len(FUNCTIONS))]
    lines = [f"def {name}({argument}):", f'    """{title}"""']
    lines += [f"    {line.format(x=argument)}" for line in body]
    lines.append("")
    for _ in range(rng.randint(2, 4)):
        numbers = [rng.randint(1, 9) for _ in range(rng.randint(2, 5))]
        lines += [f">>> {name}({numbers})", f"{compute(numbers)}"]
    return "\n".join(lines)


FUNCTIONS = (
    (
        "Return the sum of all numbers.",
        ("total = 0", "for number in {x}:", "    total = total + number", "return total"),
        sum,
    ),
    (
        "Return the largest number.",
        (
            "best = {x}[0]",
            "for number in {x}:",
            "    if number > best:",
            "        best = number",
            "return best",
        ),
        max,
    ),
    (
        "Return the smallest number.",
        (
            "best = {x}[0]",
            "for number in {x}:",
            "    if number < best:",
            "        best = number",
            "return best",
        ),
        min,
    ),
    ("Return how many numbers there are.", ("return len({x})",), len),
    ("Return the numbers in reverse.", ("return {x}[::-1]",), lambda numbers: numbers[::-1]),
    ("Return the first number.", ("return {x}[0]",), lambda numbers: numbers[0]),
    ("Return the last number.", ("return {x}[-1]",), lambda numbers: numbers[-1]),
    (
        "Return each number plus one.",
        ("return [number + 1 for number in {x}]",),
        lambda numbers: [number + 1 for number in numbers],
    ),
)


def record_class(rng: Random) -> str:
    """A class whose fields are invented, and one object of it."""
    name = words.invented_name(rng) + pick(rng, ("Box", "Shop", "Boat", "Garden", "Clock"))
    fields = [_identifier(rng) for _ in range(rng.randint(2, 4))]
    values = [rng.randint(1, 20) for _ in fields]
    variable = words.invented_word(rng, 1)
    lines = [f"class {name}:", f"    def __init__(self, {', '.join(fields)}):"]
    lines += [f"        self.{field} = {field}" for field in fields]
    lines += ["", f"{variable} = {name}({', '.join(str(value) for value in values)})"]
    for index in rng.sample(range(len(fields)), len(fields)):
        lines += [f"print({variable}.{fields[index]})", f"# {values[index]}"]
    return "\n".join(lines)


def lookup(rng: Random) -> str:
    """A dictionary, then values looked up in another order."""
    name = _identifier(rng)
    keys = [words.invented_word(rng, 2) for _ in range(rng.randint(3, 6))]
    values = [
        f'"{words.thing(rng)}"' if rng.random() < 0.5 else str(rng.randint(1, 20)) for _ in keys
    ]
    lines = [f"{name} = {{"]
    lines += [f'    "{key}": {value},' for key, value in zip(keys, values, strict=True)]
    lines.append("}")
    for index in rng.sample(range(len(keys)), len(keys)):
        lines += [f'print({name}["{keys[index]}"])', f"# {values[index].strip(chr(34))}"]
    return "\n".join(lines)


def loop_output(rng: Random) -> str:
    """A loop over names and everything it prints."""
    names = [words.invented_name(rng) for _ in range(rng.randint(3, 5))]
    variable = _identifier(rng)
    phrase = pick(
        rng,
        (
            f"has {an(words.thing(rng))}",
            f"{pick(rng, words.DEEDS)}",
            f"lives in {words.invented_place(rng)}",
            f"is {pick(rng, words.MOODS)}",
        ),
    )
    quoted = ", ".join(f'"{name}"' for name in names)
    lines = [f"{variable} = [{quoted}]", f"for name in {variable}:"]
    lines += [f'    print(name, "{phrase}")', "", "# This prints:"]
    lines += [f"# {name} {phrase}" for name in names]
    return "\n".join(lines)


CODE = (function_and_calls, record_class, lookup, loop_output)
