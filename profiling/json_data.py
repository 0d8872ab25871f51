"""Frozen dataclasses as JSON and back, exactly: the types of the fields say what is what."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_data(value: Any) -> Any:
    """A dataclass, tuple or plain value as what `json` writes."""
    if is_dataclass(value):
        return {each.name: to_data(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [to_data(each) for each in value]
    return value


def from_data(kind: type[T], data: Any) -> T:
    """The value of a type that `to_data` wrote as this.

    Args:
        kind: A dataclass of plain values, tuples, optional values and dataclasses.
        data: As `json` read it.

    Raises:
        ValueError: It is not of that type; says where and what was found.
    """
    return _read(kind, data, kind.__name__)


def _read(kind: Any, data: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _read_dataclass(kind, data, where)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(inner, data, where)
    if origin is tuple:
        return _read_tuple(inner, data, where)
    if origin is Literal:
        return data if data in inner else _refuse(kind, data, where)
    # JSON has one kind of number, and bool is an int to Python.
    number = kind is float and isinstance(data, int) and not isinstance(data, bool)
    if number or type(data) is kind:
        return data
    return _refuse(kind, data, where)


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    names = {each.name for each in fields(kind)}
    if not isinstance(data, Mapping) or data.keys() != names:
        odd = sorted(names ^ data.keys()) if isinstance(data, Mapping) else [repr(data)[:40]]
        raise ValueError(f"{where}: {', '.join(odd)} missing, unknown or out of place")
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], data[name], f"{where}.{name}") for name in names})


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    refused = ""
    for kind in kinds:
        try:
            return _read(kind, data, where)
        except ValueError as error:
            refused = refused or str(error)
    raise ValueError(refused)


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _refuse("a list", data, where)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        _refuse(f"{len(kinds)} values", data, where)
    return tuple(
        _read(kind, each, f"{where}[{at}]")
        for at, (kind, each) in enumerate(zip(kinds, data, strict=True))
    )


def _refuse(kind: Any, data: Any, where: str) -> Any:
    wanted = getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where}: {wanted} expected, found {repr(data)[:40]}")
