"""Restricting a search to items with certain values in their fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tickwork.contract.outcomes import OperatorError
from tickwork.corpus.corpus import Corpus

_FILTER = re.compile(r"(?P<field>\w+)\s*(?P<relation>>=|<=|=)\s*(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on a field."""

    field: str
    relation: str
    value: str


def parse(corpus: Corpus, texts: Sequence[str]) -> list[Filter]:
    """Conditions such as `language=eng`, `subjects=History`, `year>=2015`. Raises OperatorError for others."""
    kinds = {field.name: field.kind for field in corpus.fields}
    found = []
    for text in texts:
        match = _FILTER.fullmatch(text.strip())
        if not match:
            raise OperatorError(f"{text!r} is not a filter; write FIELD=VALUE, FIELD>=NUMBER or FIELD<=NUMBER")
        field, relation, value = match["field"], match["relation"], match["value"].strip()
        value = value.encode("utf-8", "replace").decode()  # what a command line has of bytes that are no text
        if field not in kinds:
            raise OperatorError(f"{corpus.name} has no field {field!r}; the fields are: {', '.join(kinds)}")
        if kinds[field] == "number":
            if not re.fullmatch(r"-?\d{1,15}(\.\d{1,6})?", value, re.ASCII):
                raise OperatorError(f"{field} is a number, but {value!r} is not")
        elif relation != "=":
            raise OperatorError(f"{field} is a text: use =, not {relation}")
        found.append(Filter(field, relation, value))
    return found


def condition(corpus: Corpus, filters: Sequence[Filter]) -> tuple[str, list[object]]:
    """SQL on the table `items` and its parameters: all the filters hold. Without any, it is true."""
    kinds = {field.name: field.kind for field in corpus.fields}
    parts, values = ["1"], []
    for one in filters:
        kind = kinds[one.field]  # the name is one of ours
        if kind == "list":
            parts.append(f"EXISTS (SELECT 1 FROM json_each(items.{one.field}) WHERE json_each.value = ?)")  # noqa: S608
        else:
            parts.append(f"items.{one.field} {one.relation} {'CAST(? AS NUMERIC)' if kind == 'number' else '?'}")
        values.append(one.value)
    return " AND ".join(parts), list(values)
