"""The smallest sensible instance of a JSON schema, for tool calls and structured answers."""

from collections.abc import Callable

_MAX_DEPTH = 8


def instance_of(schema: object, depth: int = 0) -> object:
    """A value that satisfies `schema` in the ordinary cases: every property, first choice."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {} if depth == 0 else None
    if "const" in schema:
        return schema["const"]
    for chooser in ("enum", "examples"):
        options = schema.get(chooser)
        if isinstance(options, list) and options:
            return options[0]
    for branch in ("anyOf", "oneOf", "allOf"):
        options = schema.get(branch)
        if isinstance(options, list) and options:
            return instance_of(options[0], depth + 1)
    return _BY_TYPE.get(_type_of(schema), _nothing)(schema, depth)


def _type_of(schema: dict[str, object]) -> str:
    named = schema.get("type", "object")
    if isinstance(named, list):
        named = named[0] if named else "null"
    return str(named)


def _object(schema: dict[str, object], depth: int) -> object:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {str(name): instance_of(part, depth + 1) for name, part in properties.items()}


def _array(schema: dict[str, object], depth: int) -> object:
    return [instance_of(schema.get("items"), depth + 1)] if schema.get("minItems") else []


def _string(schema: dict[str, object], _depth: int) -> object:
    shortest = schema.get("minLength")
    return "calm".ljust(shortest, "m") if isinstance(shortest, int) else "calm"


def _number(schema: dict[str, object], _depth: int) -> object:
    lowest = schema.get("minimum")
    return lowest if isinstance(lowest, int | float) else 1


def _nothing(_schema: dict[str, object], _depth: int) -> object:
    return None


_BY_TYPE: dict[str, Callable[[dict[str, object], int], object]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _number,
    "boolean": lambda _schema, _depth: True,
}
