"""What people are told is said in plain, direct sentences: \"'nope' is not a valid DID\", not \"'nope' is no DID\"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import yaml

from tests.kits.wrappers import ROOT

STILTED = re.compile(
    # "there is no such date" and "is no longer listed" are how it is said; "has no field" is as well.
    r"(?<!\bthere )\b(?:is|are|was|were|be|been|names|name|means|takes) (?:no(?! longer\b)|none)\b"
    r"|\banew\b|\bgone through\b|\bsuch a one\b|\bsaid of\b",
    re.IGNORECASE,
)
CODE = re.compile(r"\s*(?:SELECT|INSERT|CREATE|DELETE FROM|UPDATE|ALTER|DROP|WITH|PRAGMA|WHERE)\b|.*\(\?[P:=!]")
SHOWN_KEYS = {"fail_msg", "msg", "description", "short_description"}


class Loader(yaml.SafeLoader):
    """YAML of a role, whose tags are of no interest here."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def is_command(node: ast.AST) -> bool:
    """Whether a function's docstring is what its `--help` prints."""
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(found, ast.Call)
        and isinstance(found.func, ast.Attribute)
        and found.func.attr in ("command", "callback")
        for found in node.decorator_list
    )


def unshown(tree: ast.AST) -> set[ast.AST]:
    """The docstrings of everything but commands, those of constants and fields among them."""
    bare: set[ast.AST] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and not is_command(node):
            bare |= {each.value for each in body if isinstance(each, ast.Expr)}
    return bare


def texts(source: str) -> Iterator[str]:
    """The string constants of a program that a person may be shown; a value inside one is `{}`."""
    tree = ast.parse(source)
    left_out = unshown(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {part for part in node.values if isinstance(part, ast.Constant)}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            text = node.value
        if text and not CODE.match(text):
            yield " ".join(text.split())


def values(node: object) -> Iterator[str]:
    """The texts in a role's YAML that a person is shown."""
    if isinstance(node, list):
        for each in node:
            yield from values(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in SHOWN_KEYS:
                yield from (str(each) for each in (value if isinstance(value, list) else [value]))
            yield from values(value)


def stilted(found: Iterator[str]) -> list[str]:
    return [text for text in found if STILTED.search(text)]


PROGRAMS = sorted([*ROOT.glob("jobs/tickwork/**/*.py"), *ROOT.glob("roles/*/files/*.py"), *ROOT.glob("scripts/*.py")])
DECLARATIONS = sorted([*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/*.yml")])


def test_no_program_says_that_something_is_no_thing() -> None:
    assert not {path.name: found for path in PROGRAMS if (found := stilted(texts(path.read_text())))}


def test_no_role_says_that_something_is_no_thing() -> None:
    documents = {path: yaml.load(path.read_text(), Loader) for path in DECLARATIONS}
    assert not {str(path): found for path, document in documents.items() if (found := stilted(values(document)))}


@pytest.mark.parametrize(
    "said",
    [
        "raise ValueError(f'{did!r} is no DID')",
        "print('the document of x names no server')",
        "why = 'a link that is no byte string'",
        "@app.command()\ndef publish(): 'Make the index anew.'",
        "typer.Option(help='Relays whose lists are gone through.')",
    ],
)
def test_the_worst_form_would_be_noticed(said: str) -> None:
    assert stilted(texts(said))


@pytest.mark.parametrize(
    "said",
    [
        "raise ValueError('there is no such job')",
        "raise ValueError('the schedule is no longer deployed')",
        "raise ValueError(f'{corpus} has no field {name!r}')",
        "def made(): 'A value that is no DID is left out; nobody but a reader of the program sees this.'",
    ],
)
def test_plain_english_and_docstrings_are_left_alone(said: str) -> None:
    assert not stilted(texts(said))


def test_roles_are_looked_through_wherever_a_text_stands() -> None:
    document = yaml.load("- block: [{assert: {that: x, fail_msg: plc names no directory}}]", Loader)
    assert stilted(values(document)) == ["plc names no directory"]
