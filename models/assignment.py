"""Which pattern each head runs with, in memory and as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnscope.kernels.errors import AttnscopeError, InvalidCall, RecordUnreadable
from attnscope.kernels.patterns.matrix import Matrix
from attnscope.kernels.patterns.pattern import Pattern
from attnscope.models.capture_store import pattern_from_json, pattern_to_json

SCHEMA = 1

HeadPatterns = tuple[Pattern | None, ...]
"""One a query head; a head without one keeps to the model's own rule."""

LayerPatterns = Pattern | HeadPatterns | None
"""One for all heads of a layer, or one for each, or none."""

Patterns = LayerPatterns | Mapping[int, LayerPatterns]
"""The same for every layer, or by layer; layers not named keep to the model's own rule."""


def patterns_of(patterns: Patterns, layer: int) -> LayerPatterns:
    """What one layer runs with."""
    return patterns.get(layer) if isinstance(patterns, Mapping) else patterns


def named_patterns(patterns: Patterns) -> Iterator[Pattern]:
    """Every pattern among them, once each."""
    layers = patterns.values() if isinstance(patterns, Mapping) else [patterns]
    heads = (layer if isinstance(layer, tuple) else (layer,) for layer in layers)
    found = (pattern for layer in heads for pattern in layer if pattern is not None)
    yield from dict.fromkeys(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A pattern for each head of a model, to be kept.

    Attributes:
        model: The model's name for people.
        revision: Its commit, or None.
        layers: By layer, from 0; a head without a pattern keeps to the model's own rule.
    """

    model: str
    revision: str | None
    layers: Mapping[int, HeadPatterns]

    @property
    def restricted(self) -> tuple[tuple[int, int], ...]:
        """Layer and head of each that has a pattern."""
        return tuple(
            (layer, head)
            for layer, heads in self.layers.items()
            for head, pattern in enumerate(heads)
            if pattern is not None
        )

    def to_json(self) -> str:
        """As JSON: each pattern once, and for each head the number of its own.

        Raises:
            InvalidCall: A pattern has no form in JSON: a matrix, or a function.
        """
        number = {pattern: at for at, pattern in enumerate(named_patterns(self.layers))}
        layers = {
            str(layer): [None if head is None else number[head] for head in heads]
            for layer, heads in self.layers.items()
        }
        return json.dumps(
            {
                "schema": SCHEMA,
                "model": self.model,
                "revision": self.revision,
                "patterns": [_described(pattern) for pattern in number],
                "layers": layers,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Assignment":
        """What `to_json` wrote.

        Raises:
            RecordUnreadable: It is no such JSON, or of another version.
            UnknownPattern: It names a pattern that does not exist, or parameters out of range.
        """
        try:
            read = json.loads(text)
            if read["schema"] != SCHEMA:
                raise RecordUnreadable(
                    f"The assignment is of version {read['schema']}; this program reads {SCHEMA}.",
                    "Export it again.",
                )
            patterns = dict(enumerate(map(pattern_from_json, read["patterns"])))
            layers = {
                int(layer): tuple(None if at is None else patterns[at] for at in heads)
                for layer, heads in read["layers"].items()
            }
            return cls(model=read["model"], revision=read["revision"], layers=layers)
        except AttnscopeError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordUnreadable(
                "This is no assignment of patterns to heads.", "Give a file that was exported here."
            ) from error


def _described(pattern: Pattern) -> dict[str, object]:
    if isinstance(pattern, Matrix):
        raise InvalidCall(
            f"The {pattern.title} has no form in JSON.", "Assign patterns that have parameters."
        )
    return pattern_to_json(pattern)
