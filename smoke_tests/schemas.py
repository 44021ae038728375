"""The JSON schemas and tools of the conformance tests."""

import json
from typing import Any

from smoke_tests.asking import user

CITIES, STARS = ["Paris", "Rome", "Tokyo"], {"minimum": 1, "maximum": 5}
# Every value has a bounded length, so that even a random model finishes.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": CITIES},
        "stars": {"type": "integer", **STARS},
        "open": {"type": "boolean"},
    },
    "required": ["city", "stars", "open"],
    "additionalProperties": False,
}
NESTED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "hotels": {"type": "array", "items": {"$ref": "#/$defs/hotel"}, "minItems": 2, "maxItems": 2},
        "parking": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["hotels", "parking"],
    "additionalProperties": False,
    "$defs": {"hotel": SCHEMA},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "hotel", "schema": SCHEMA, "strict": True}}
NESTED_FORMAT = {"type": "json_schema", "json_schema": {"name": "hotels", "schema": NESTED_SCHEMA, "strict": True}}
QUESTION = user("Recommend a hotel.")
# JSON allows white space between tokens, and a random model produces much of it.
ENOUGH_TOKENS = 600


def tool(name: str) -> dict[str, Any]:
    """Return a tool whose arguments match SCHEMA."""
    return {
        "type": "function",
        "function": {"name": name, "description": "Looks it up.", "strict": True, "parameters": SCHEMA},
    }


TOOLS = [tool("find_hotel"), tool("find_restaurant")]
NAMED = {"type": "function", "function": {"name": "find_restaurant"}}


def assert_fits(text: Any) -> None:
    """Assert that a text is JSON that matches SCHEMA."""
    assert text, "the answer is empty"
    assert isinstance(text, str), f"the JSON is {type(text).__name__}, not a string"
    try:
        value = json.loads(text)
    except ValueError:
        raise AssertionError(f"the answer is not JSON: {text[:200]!r}") from None
    assert_matches(value)


def assert_matches(value: Any) -> None:
    """Assert that a value matches SCHEMA."""
    assert isinstance(value, dict), f"not a JSON object: {str(value)[:200]!r}"
    assert set(value) == {"city", "stars", "open"}, f"the object has the fields {sorted(value)}"
    assert value["city"] in CITIES
    assert type(value["stars"]) is int
    assert STARS["minimum"] <= value["stars"] <= STARS["maximum"]
    assert type(value["open"]) is bool
