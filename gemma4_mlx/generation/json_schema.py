"""JSON schemas as people have them → the part of JSON Schema that llguidance enforces, with the same meaning.

Pydantic, OpenAPI and OpenAI's `response_format` write more than that. What is only an annotation is dropped: by the
standard (JSON Schema 2020-12, "Validation", section 7) a format, known or not, asserts nothing. What can be said in
other keywords is said in them. A limit beyond what llguidance holds is narrowed, never widened: an answer that follows
the result is valid by the schema as given. What is left is refused, and its place is named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from .known_patterns import WITHOUT_LOOKING_AROUND

# Formats that llguidance enforces (1.9; parser/src/json/formats.rs).
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}

# Keywords by what they hold.
_ONE = ("additionalProperties", "items", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")
_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_SEVERAL = (*_ALTERNATIVES, "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_UNENFORCED = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired", "dependentSchemas"),
    *("dependencies", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)
_ANNOTATIONS = {"title", "description", "default", "examples", "example", "deprecated", "$comment", "format"}

_KNOWN_DRAFTS = "json-schema.org/"
# llguidance keeps limits of whole numbers in 64 bits and works them out in floating point; those of other numbers it
# spells in full, up to 18 digits.
_MOST_WHOLE = 2**63 - 1024
_MOST_NUMBER = 10**18
# Orders of the values of a set that are written out: 326 for five values.
_MOST_DISTINCT = 5


@dataclass(frozen=True)
class Enforceable:
    """What is to be enforced for a schema.

    Attributes:
        schema: in keywords that llguidance knows.
        pointer: JSON pointer to the schema in what was given.
        distinct: names of members whose arrays must not repeat an item; None: all arrays.
    """

    schema: dict[str, Any]
    pointer: str
    distinct: frozenset[str] | None


def enforceable(schema: Mapping[str, Any] | str) -> Enforceable:
    """What is to be enforced for a schema.

    Args:
        schema: a JSON schema as a dict or as JSON text, or OpenAI's wrapper round one: `{"name", "strict", "schema"}`,
            `{"type": "json_schema", "json_schema": {…}}`.

    Raises:
        ValueError: it is no JSON schema, or says what cannot be enforced; the place is named as a JSON pointer.
    """
    root, pointer = _unwrapped(_as_json(schema))
    try:
        rewriting = _Rewriting(root, pointer)
        rewritten = rewriting.rewritten(root, pointer)
    except RecursionError:
        raise ValueError("the schema cannot be followed: it is nested too deeply") from None
    names = frozenset(name for name in rewriting.distinct if name is not None)
    return Enforceable(rewritten, pointer, None if None in rewriting.distinct else names)


def place_of(rules: Enforceable, fault: Callable[[dict[str, Any]], str]) -> str:
    """JSON pointer to the innermost part, down to a keyword, without which a schema has another fault, or none.

    Args:
        fault: what is wrong with a schema, "" if nothing is.
    """
    whole = fault(rules.schema)
    guilty = [path for path in _paths(rules.schema) if fault(_without(rules.schema, path)) != whole]
    return rules.pointer + "".join(f"/{_escaped(str(step))}" for step in max(guilty, key=len, default=()))


def _paths(schema: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths of all keywords and subschemas, outer ones first."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        yield (*path, keyword)
        if keyword in _NAMED and isinstance(value, dict):
            inner = [((*path, keyword, name), item) for name, item in value.items()]
        elif keyword in _SEVERAL and isinstance(value, list):
            inner = [((*path, keyword, number), item) for number, item in enumerate(value)]
        else:
            inner = [((*path, keyword), value)] if keyword in _ONE else []
        for place, item in inner:
            if place != (*path, keyword):
                yield place
            yield from _paths(item, place)


def _without(schema: Any, path: tuple[str | int, ...]) -> Any:
    """A copy without a keyword, or with a subschema that allows anything."""
    step, *rest = path
    if not rest:
        if isinstance(schema, list):
            return [{} if number == step else item for number, item in enumerate(schema)]
        return {key: value for key, value in schema.items() if key != step}
    if isinstance(schema, list):
        return [_without(item, tuple(rest)) if number == step else item for number, item in enumerate(schema)]
    return {key: _without(value, tuple(rest)) if key == step else value for key, value in schema.items()}


def _as_json(schema: Mapping[str, Any] | str) -> dict[str, Any]:
    """The schema as plain JSON."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        plain = json.loads(text, parse_constant=_no_number)
        json.dumps(plain, allow_nan=False)  # 1e999 has become infinity
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the schema is not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise ValueError(f"a JSON schema is an object, not {type(plain).__name__}")
    return plain


def _check_names(schema: dict[str, Any], pointer: str) -> None:
    """Raise ValueError where a type or a format is no name."""
    types = schema.get("type", [])
    for keyword, names in (("type", types if isinstance(types, list) else [types]), ("format", [schema.get("format")])):
        if any(isinstance(name, dict | list) for name in names):
            raise ValueError(f"the schema cannot be followed at {pointer}/{keyword}: a {keyword} is a name")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unwrapped(schema: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The schema in OpenAI's wrappers, if it is in any, and the pointer to it."""
    pointer = "#"
    if schema.get("type") == "json_schema" and isinstance(schema.get("json_schema"), dict):
        schema, pointer = schema["json_schema"], "#/json_schema"
    if isinstance(schema.get("schema"), dict) and schema.keys() <= {"name", "strict", "schema", "description", "type"}:
        return schema["schema"], f"{pointer}/schema"
    return schema, pointer


class _Rewriting:
    """Goes through a schema once, from the root.

    Args:
        root: the schema that references in it are relative to.
        pointer: where it stands in what was given.
    """

    def __init__(self, root: dict[str, Any], pointer: str) -> None:
        self._root = root
        self._base = pointer
        # Where objects are put together from several parts, each part must let the others' members pass.
        self._is_composed = any(
            "allOf" in part or ("properties" in part and part.keys() & {"anyOf", "oneOf", "$ref"})
            for part in _objects(root)
        )
        # Names of the members whose arrays must not repeat an item, None for an array that may be anywhere.
        self.distinct: set[str | None] = set()

    def rewritten(self, schema: Any, pointer: str, member: str | None = None) -> Any:
        """What says the same as `schema` to llguidance.

        Args:
            member: the name of the member that it describes; None if it may be any.
        """
        if not isinstance(schema, dict):
            return schema
        rewritten = dict(schema)
        if schema is self._root and _KNOWN_DRAFTS not in str(schema.get("$schema", _KNOWN_DRAFTS)):
            del rewritten["$schema"]  # a dialect of its own, which nobody here can look up
        for keyword in _UNENFORCED:
            if keyword in schema:
                raise ValueError(f"the schema cannot be followed at {pointer}/{keyword}: {keyword} cannot be enforced")
        _check_names(schema, pointer)
        self._format(rewritten)
        if isinstance(pattern := schema.get("pattern"), str):
            rewritten["pattern"] = WITHOUT_LOOKING_AROUND.get(pattern, pattern)
        _nullable(rewritten)
        self._values(rewritten, pointer)
        _limits(rewritten, pointer)
        self._property_names(rewritten, pointer)
        self._unique_items(rewritten, pointer, member)
        self._other_members(rewritten)
        return self._inside(rewritten, pointer, member)

    def _inside(self, schema: dict[str, Any], pointer: str, member: str | None) -> dict[str, Any]:
        for keyword, value in schema.items():
            place = f"{pointer}/{_escaped(keyword)}"
            if keyword in _NAMED and isinstance(value, dict):
                is_member = keyword == "properties"
                schema[keyword] = {
                    name: self.rewritten(item, f"{place}/{_escaped(name)}", name if is_member else None)
                    for name, item in value.items()
                }
            elif keyword in (*_SEVERAL, "items") and isinstance(value, list):
                same = member if keyword in _ALTERNATIVES else None
                schema[keyword] = [self.rewritten(item, f"{place}/{n}", same) for n, item in enumerate(value)]
            elif keyword in _ONE:
                schema[keyword] = self.rewritten(value, place)
        if pointer == self._base and isinstance(components := schema.get("components"), dict):
            # OpenAPI's place for what is referred to.
            place = f"{pointer}/components/schemas"
            schemas = components.get("schemas")
            named = schemas if isinstance(schemas, dict) else {}
            rewritten = {name: self.rewritten(item, f"{place}/{_escaped(name)}") for name, item in named.items()}
            schema["components"] = {"schemas": rewritten}
        return schema

    def _format(self, schema: dict[str, Any]) -> None:
        if "format" in schema and (schema["format"] not in _FORMATS or schema.keys() & {"const", "enum"}):
            del schema["format"]

    def _values(self, schema: dict[str, Any], pointer: str) -> None:
        """`const` and `enum`: llguidance reads numbers as floating point, and writes what that makes of them."""
        values = [("const", schema["const"])] if "const" in schema else []
        if isinstance(schema.get("enum"), list):
            values += [(f"enum/{number}", value) for number, value in enumerate(schema["enum"])]
        for place, value in values:
            for number in _whole_numbers(value):
                if not _is_held(number):
                    raise ValueError(
                        f"the schema cannot be followed at {pointer}/{place}: {number} cannot be held exactly; make it "
                        "a string"
                    )

    def _property_names(self, schema: dict[str, Any], pointer: str) -> None:
        """`propertyNames`, said in `properties` or `patternProperties`."""
        if "propertyNames" not in schema:
            return
        place = f"{pointer}/propertyNames"
        names = self._resolved(schema.pop("propertyNames"), place)
        if names is True:
            return
        if not isinstance(names, dict):
            raise ValueError(f"the schema cannot be followed at {place}: {names!r} cannot be enforced")
        rules = {k: v for k, v in names.items() if k not in _ANNOTATIONS and (k, v) != ("type", "string")}
        if not rules:
            return
        others = schema.get("additionalProperties", True)
        properties = schema.get("properties", {})
        if "patternProperties" in schema or not isinstance(properties, dict):
            raise ValueError(f"the schema cannot be followed at {place}: not together with patternProperties")
        if rules.keys() <= {"enum", "const"}:
            wanted = [name for name in names.get("enum", [names.get("const")]) if isinstance(name, str)]
            schema["properties"] = {
                name: properties.get(name, others)
                for name in wanted
                if (name in properties or others is not False) and name in (names.get("const", name),)
            }
        elif rules.keys() == {"pattern"} or rules.keys() <= {"minLength", "maxLength"}:
            fewest, most = rules.get("minLength", 0), rules.get("maxLength", "")
            pattern = rules.get("pattern", f"^(?s:.{{{fewest},{most}}})$")
            schema["properties"] = {name: item for name, item in properties.items() if _matches(pattern, name, place)}
            if others is not False:
                schema["patternProperties"] = {pattern: others}
        else:
            raise ValueError(f"the schema cannot be followed at {place}: only one of enum, pattern, or lengths can be")
        schema["additionalProperties"] = False

    def _other_members(self, schema: dict[str, Any]) -> None:
        """An object whose members are named gets no others, unless the schema asks for them.

        Pydantic leaves the question open, and a model that is left it goes on for ever.
        """
        named = schema.get("properties")
        if not isinstance(named, dict) or not named or self._is_composed:
            return
        required = schema.get("required", [])
        is_open = schema.keys() & {"additionalProperties", "patternProperties", "minProperties"}
        if not is_open and isinstance(required, list) and named.keys() >= {str(name) for name in required}:
            schema["additionalProperties"] = False

    def _unique_items(self, schema: dict[str, Any], pointer: str, member: str | None) -> None:
        """`uniqueItems`: of a few values, all orders are written out; of others it is for `DistinctItems` to see to."""
        if schema.pop("uniqueItems", False) is not True or "array" not in schema.get("type", "array"):
            return
        values = self._few_values(schema.get("items"), f"{pointer}/items")
        if values is None or schema.get("type") != "array" or schema.keys() & {"prefixItems", "enum", "const"}:
            self.distinct.add(member)
            return
        fewest, most = schema.pop("minItems", 0), schema.pop("maxItems", len(values))
        lengths = [length for length in range(len(values) + 1) if fewest <= length <= most]
        if not lengths:
            raise ValueError(
                f"the schema cannot be followed at {pointer}/minItems: there are not {fewest} unique items"
            )
        del schema["items"], schema["type"]
        schema["enum"] = [list(order) for length in lengths for order in permutations(values, length)]

    def _few_values(self, items: Any, pointer: str) -> list[Any] | None:
        """All values that `items` allows, if they are few."""
        items = self._resolved(items, pointer)
        if not isinstance(items, dict):
            return None
        values = items.get("enum", [items["const"]] if "const" in items else None)
        if values is None and items.get("type") == "boolean":
            values = [False, True]
        least, most = items.get("minimum"), items.get("maximum")
        if items.get("type") == "integer" and isinstance(least, int) and isinstance(most, int):
            values = list(range(least, min(most, least + _MOST_DISTINCT) + 1))
        if not isinstance(values, list) or len(values) > _MOST_DISTINCT:
            return None
        return values if all(isinstance(value, str | int) or value is None for value in values) else None

    def _resolved(self, schema: Any, pointer: str) -> Any:
        """What a reference within the schema refers to."""
        for _ in range(32):
            if not isinstance(schema, dict) or not isinstance(schema.get("$ref"), str):
                return schema
            target: Any = self._root
            reference = schema["$ref"]
            steps = reference.removeprefix("#").strip("/").split("/") if reference.startswith("#/") else [None]
            for step in steps:
                name = step.replace("~1", "/").replace("~0", "~") if step else None
                if not isinstance(target, dict) or name not in target:
                    raise ValueError(f"the schema cannot be followed at {pointer}/$ref: there is no {reference}")
                target = target[name]
            schema = target
        raise ValueError(f"the schema cannot be followed at {pointer}/$ref: it refers to itself")


def _escaped(name: str) -> str:
    """A step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value, itself included."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(item)


def _nullable(schema: dict[str, Any]) -> None:
    """OpenAPI 3.0's way to allow null beside a type; it changes nothing beside an `enum` without null."""
    if schema.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _is_held(number: int) -> bool:
    """Whether a whole number comes out of floating point as it went in."""
    return abs(number) <= 2**53 or (abs(number) < 2**63 and int(float(number)) == number)


def _limits(schema: dict[str, Any], pointer: str) -> None:
    """`minimum` and its like, within what llguidance holds."""
    types = schema.get("type")
    types = types if isinstance(types, list) else [types]
    whole = "integer" in types and "number" not in types
    if not whole and not {"number", None} & set(types):
        return
    for inclusive, exclusive, sign in (("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)):
        for keyword in (inclusive, exclusive):
            limit = schema.get(keyword)
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                continue
            narrowed = _whole_limit(limit, sign) if whole else _limit(limit, sign)
            if narrowed is None:
                raise ValueError(f"the schema cannot be followed at {pointer}/{keyword}: {limit} is too large a limit")
            schema[keyword] = narrowed


def _whole_limit(limit: float, sign: int) -> float | None:
    """A limit of whole numbers that floating point holds, not wider than `limit`; None if there is none."""
    if abs(limit) <= 2**53:
        return limit
    inwards = sign * int(limit)  # the larger it is, the wider
    if inwards < -_MOST_WHOLE:
        return None
    nearest = float(min(inwards, _MOST_WHOLE))
    while int(nearest) > inwards:
        nearest = math.nextafter(nearest, -math.inf)
    return sign * int(nearest)


def _limit(limit: float, sign: int) -> float | None:
    if sign * limit < -_MOST_NUMBER:
        return None
    return sign * min(sign * limit, _MOST_NUMBER)


def _matches(pattern: str, name: str, place: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise ValueError(f"the schema cannot be followed at {place}/pattern: {error}") from None
