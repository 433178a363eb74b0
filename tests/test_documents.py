"""What the documents say: their commands can be typed, their examples run, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.core import TyperGroup

from tests.kits.atproto import DID, Account, cid, dag_cbor
from tests.kits.documents import DOCUMENTS, blocks, commands
from tests.kits.wrappers import ROOT
from tickwork import cli
from tickwork.sources.atproto.settings import AtprotoSettings
from tickwork.sources.doab.settings import DoabSettings


def read(words: list[str]) -> None:
    """Read a command's arguments as the command would, and do nothing. Raises a click.UsageError."""
    command: Any = typer.main.get_command(cli.app)
    context = command.make_context("tickwork", list(words))
    while isinstance(command, TyperGroup):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_can_be_typed_as_it_stands(document: Path) -> None:
    for words in commands(document):
        read(words)


def test_a_command_that_is_not_there_would_be_noticed() -> None:
    for words in (
        ["atproto", "discover", "--hots", "https://a.example"],
        ["atproto", "dicsover"],
        ["doab", "diff", "x"],
    ):
        with pytest.raises(Exception, match=r"No such|unexpected extra"):
            read(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match("[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = document.parent / path if path else document
        assert found.exists(), target
        if anchor:
            headings = re.findall("^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings], target


@pytest.mark.parametrize(("source", "settings"), [("doab", DoabSettings), ("atproto", AtprotoSettings)])
def test_the_page_of_a_source_names_every_setting(source: str, settings: type[msgspec.Struct]) -> None:
    page = (ROOT / "docs" / f"{source}.md").read_text()
    assert [field.name for field in msgspec.structs.fields(settings) if f"`{field.name}`" not in page] == []


def test_the_page_of_atproto_names_every_state_and_every_table() -> None:
    page = (ROOT / "docs/atproto.md").read_text()
    schema = (ROOT / "jobs/tickwork/sources/atproto/schema.py").read_text()
    states = re.search(r"status IN \(([^)]*)\)", schema)[1]
    listed = re.search(r"\| state \|.*?\n\n", page, re.DOTALL)[0]
    assert [state for state in re.findall(r"'(\w+)'", states) if not re.search(rf"\b{state}\b", listed)] == []
    for table in re.findall(r"CREATE TABLE (\w+)", schema):
        assert f"`{table}`" in page, table


def test_the_example_of_atproto_tells_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks(ROOT / "docs/atproto.md", "python")
    names: dict[str, Any] = {}
    exec(example, names)
    account = Account()
    post, like = {"$type": "app.bsky.feed.post", "text": "hello"}, {"$type": "app.bsky.feed.like"}
    file = tmp_path / "repo.car"
    file.write_bytes(account.repository({"app.bsky.feed.like/1": like, "app.bsky.feed.post/2": post}))
    gone, same = cid(b"gone").binary, cid(dag_cbor(like)).binary
    stored = {"app.bsky.feed.like/1": same, "app.bsky.feed.post/1": gone}
    said = names["changes"](file, DID, f"did:key:{account.multikey()}", stored)
    assert said == ["delete app.bsky.feed.post/1", "create app.bsky.feed.post/2"]
    assert "'text': 'hello'" in capsys.readouterr().out


def test_the_picture_of_the_tree_is_the_tree() -> None:
    (picture,) = re.findall(
        r"^```\njobs/tickwork/\n(.*?)^```", (ROOT / "docs/architecture.md").read_text(), re.M | re.S
    )
    drawn, folders = set(), {0: ROOT / "jobs/tickwork"}
    for line in picture.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth] = folders[depth - 1] / name
        drawn.add(folders[depth])
    package = ROOT / "jobs/tickwork"
    packages = {path.parent for path in package.rglob("__init__.py")} - {package}
    modules = {path for path in package.glob("*.py") if not path.name.startswith("__")}
    assert {path.relative_to(package) for path in drawn} == {path.relative_to(package) for path in packages | modules}
