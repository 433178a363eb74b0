"""Records as JSON, as lexicons and servers show them: links are `{"$link": cid}`, bytes `{"$bytes": base64}`.

Source: https://atproto.com/specs/data-model.
"""

from __future__ import annotations

import base64
import binascii
from typing import TypeAlias

from tickwork.sources.atproto.repo import cbor
from tickwork.sources.atproto.repo.errors import InvalidRepositoryError
from tickwork.sources.atproto.repo.identifiers import cid_bytes, cid_text

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def to_json(value: cbor.Value) -> Json:
    """The JSON form of what `cbor.decode` gave."""
    if isinstance(value, cbor.Link):
        return {"$link": cid_text(value)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii").rstrip("=")}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    return value


def from_json(record: Json) -> cbor.Value:
    """The value of a record's JSON form, for `cbor.encode`.

    Raises InvalidRepositoryError for what the data model has no place for: a record that is no object, floats, a broken
    `$link`, `$bytes` or `$type`, a blob without link, type or size, nesting beyond cbor.MAX_DEPTH.
    """
    if not isinstance(record, dict):
        raise InvalidRepositoryError("the record is not an object")
    return _value(record, 0)


def _value(value: Json, depth: int) -> cbor.Value:
    if depth > cbor.MAX_DEPTH:
        raise InvalidRepositoryError(f"more than {cbor.MAX_DEPTH} nested lists and objects")
    if isinstance(value, float):
        if not value.is_integer():
            raise InvalidRepositoryError(f"the float {value}")
        return int(value)
    if isinstance(value, list):
        return [_value(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return _object(value, depth)
    return value


def _object(value: dict[str, Json], depth: int) -> cbor.Value:
    if "$link" in value or "$bytes" in value:
        return _special(value)
    kind = value.get("$type", "unnamed")
    if not isinstance(kind, str) or not kind:
        raise InvalidRepositoryError(f"the $type {kind!r} is not a name")
    fields = {name: _value(item, depth + 1) for name, item in value.items()}
    if kind == "blob":
        size = fields.get("size")
        whole = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        if not whole or not isinstance(fields.get("ref"), cbor.Link) or not isinstance(fields.get("mimeType"), str):
            raise InvalidRepositoryError("a blob without a link, a mimeType or a size")
    return fields


def _special(value: dict[str, Json]) -> cbor.Value:
    (name, text), *more = value.items()
    if more or not isinstance(text, str):
        raise InvalidRepositoryError(f"a {name} that is not one text and nothing else")
    if name == "$link":
        return cbor.Link(cid_bytes(text))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRepositoryError("a $bytes that is not base64") from error
