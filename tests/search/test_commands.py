"""`tickwork search` and `tickwork similar`: what they print, and what they say when there is nothing to search."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kits.deployment import Said
from tests.kits.operate import Tickwork
from tests.kits.vectors import book, change, config, make_state, tiny_model
from tickwork.cli import main
from tickwork.contract.paths import Paths
from tickwork.generation.generations import Generations

KEYS = ["id", "identifier", "title", "score", "snippet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployment with forty books, embedded and twice published."""
    home = tmp_path_factory.mktemp("service")
    state = make_state(home / "state", 40)
    (home / "tickwork.toml").write_text(config(tiny_model(home / "model")))
    for command in ("embed", "publish", "", "embed", "publish"):
        if not command:
            change(state, 40, title="The last of the beekeepers")
            continue
        with pytest.raises(SystemExit) as end:
            main(["--config", str(home / "tickwork.toml"), "--state", str(state), command, "doab"])
        assert end.value.code == 0
    return home


@pytest.fixture
def service(made: Path, paths: Paths) -> Path:
    """A copy of it, of the test's own."""
    shutil.copytree(made / "state", paths.state, symlinks=True)
    return paths.state


@pytest.fixture
def ask(tickwork: Tickwork, service: Path, made: Path) -> Callable[..., Said]:
    def run(*arguments: str) -> Said:
        return tickwork(*arguments, config=(made / "tickwork.toml").read_text())

    return run


Ask = Callable[..., Said]


def folder(state: Path) -> Path:
    generation = Generations(Paths.under(state), "doab").current()
    assert generation
    return generation.folder


@pytest.mark.parametrize("mode", ["words", "meaning", "both"])
def test_json_is_a_list_of_items_with_five_keys(ask: Ask, mode: str) -> None:
    said = ask("search", "doab", book(7)["title"], "--mode", mode, "--limit", "4", "--json")
    assert said.code == 0
    assert said.out.count("\n") == 1
    hits = said.json()
    assert len(hits) == 4
    assert [list(hit) for hit in hits] == [KEYS] * 4
    assert [[type(value) for value in hit.values()] for hit in hits] == [[int, str, str, float, str]] * 4
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    for hit in hits:
        assert hit["identifier"] == f"oai:directory.doabooks.org:20.500.12854/{hit['id']}"
        assert hit["title"] == book(hit["id"])["title"]
    if mode != "meaning":  # the model is a random one
        assert hits[0]["id"] == 7


def test_both_is_the_mode_without_one(ask: Ask) -> None:
    assert ask("search", "doab", "whaling", "--json") == ask("search", "doab", "whaling", "--json", "--mode", "both")
    assert len(ask("search", "doab", "volume", "--json").json()) == 10, "ten without a limit"


def test_people_get_numbered_titles_with_links_and_snippets(ask: Ask) -> None:
    said = ask("search", "doab", "The last of the beekeepers", "--limit", "2")
    lines = said.out.splitlines()
    assert re.fullmatch(r"  1\. The last of the beekeepers  \[[01]\.\d{3}\]", lines[0])
    assert lines[1].strip() == "https://directory.doabooks.org/handle/20.500.12854/40"
    assert lines[2].startswith("     ")
    assert sum(line.startswith("  2. ") for line in lines) == 1


def test_nothing_found_is_an_empty_list_and_a_word_to_people(ask: Ask) -> None:
    assert ask("search", "doab", "xylophone", "--mode", "words", "--json").json() == []
    said = ask("search", "doab", "xylophone", "--mode", "words")
    assert (said.code, said.out, said.err) == (0, "", "nothing found\n")


def test_a_file_of_queries_is_answered_line_by_line(ask: Ask, tmp_path: Path) -> None:
    queries = ["whaling in Sicily", "", "two\u2028lines\x0cto some", "xylophone", book(3)["title"]]
    path = tmp_path / "queries.txt"
    path.write_text("\n".join(queries) + "\n")
    said = ask("search", "doab", "--queries", str(path), "--mode", "words", "--limit", "3")
    lines = [json.loads(line) for line in said.out.split("\n")[:-1]]
    assert len(lines) == len(queries)
    for query, hits in zip(queries, lines, strict=True):
        alone = ask("search", "doab", query, "--mode", "words", "--limit", "3", "--json").json() if query else []
        assert hits == alone
    assert lines[1] == lines[3] == []
    assert lines[4][0]["id"] == 3
    path.write_text("\n".join(queries))  # the last line without its end
    assert ask("search", "doab", "--queries", str(path), "--mode", "words", "--limit", "3").out == said.out


@pytest.mark.parametrize("arguments", [(), ("bees", "--queries", "queries.txt")])
def test_either_a_query_or_a_file_of_them_is_needed(ask: Ask, arguments: tuple[str, ...]) -> None:
    said = ask("search", "doab", *arguments)
    assert said.code == 2
    assert "give a query, or a file of them with --queries" in said.err


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_queries_that_cannot_be_read_are_an_error_with_the_file_s_name(
    ask: Ask, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "queries.txt"
    if content is not None:
        path.write_bytes(content)
    said = ask("search", "doab", "--queries", str(path))
    assert said.code == 2
    assert f"cannot read the queries {path}" in said.err


def test_filters_are_taken_more_than_once(ask: Ask) -> None:
    filters = ("--filter", "year>=2005", "--filter", "language=eng")
    hits = ask("search", "doab", "volume", "--json", "--limit", "100", *filters).json()
    expected = {n for n in range(1, 41) if book(n)["year"] >= 2005 and book(n)["language"] == "eng"}
    assert {hit["id"] for hit in hits} == expected
    assert expected


def test_a_filter_on_an_unknown_field_names_the_fields(ask: Ask) -> None:
    said = ask("search", "doab", "x", "--filter", "yaer=2000")
    assert said.code == 2
    assert said.err.startswith(
        "tickwork: doab has no field 'yaer'; the fields are: creators, subjects, publisher, year"
    )


def test_similar_items_are_asked_for_by_id_or_identifier(ask: Ask) -> None:
    said = ask("similar", "doab", "7", "--json", "--limit", "5")
    hits = said.json()
    assert [list(hit) for hit in hits] == [KEYS] * 5
    assert 7 not in {hit["id"] for hit in hits}
    assert ask("similar", "doab", "oai:directory.doabooks.org:20.500.12854/7", "--json", "--limit", "5") == said
    said = ask("similar", "doab", "4711")
    assert said.code == 2
    assert said.err == "tickwork: doab has no item '4711'\n"


def test_search_without_meaning_loads_no_model(ask: Ask, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("tickwork.vectors.model.load_for", refuse)
    assert ask("search", "doab", "whaling", "--mode", "words").code == 0
    assert ask("similar", "doab", "7").code == 0


@pytest.mark.parametrize("command", [("search", "doab", "bees"), ("similar", "doab", "1")])
def test_before_anything_is_published_both_say_what_to_do(tickwork: Tickwork, command: tuple[str, ...]) -> None:
    said = tickwork(*command)
    assert said.code == 2
    assert said.err == "tickwork: nothing of doab is published yet; tickwork publish doab\n"


def test_a_missing_gpu_is_an_error_of_the_search_as_well(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = ask("search", "doab", "bees", "--gpu")
    assert said.code == 2
    assert "no usable GPU" in said.err


# A generation that cannot be read.

BY_FILTERED_MEANING = ("--mode", "meaning", "--filter", "year>=1")
NEEDED_BY = {
    "doab.db": ("--mode", "words"),
    "similar.db": ("--mode", "words"),
    "index.faiss": ("--mode", "meaning"),
    "vectors.npy": BY_FILTERED_MEANING,
    "ids.npy": BY_FILTERED_MEANING,
}


@pytest.mark.parametrize("harm", ["garbage", "cut", "missing"])
@pytest.mark.parametrize("name", NEEDED_BY)
def test_a_damaged_file_is_named_with_the_way_back(ask: Ask, service: Path, name: str, harm: str) -> None:
    path = folder(service) / name
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(b"garbage" * 1000 if harm == "garbage" else path.read_bytes()[: path.stat().st_size // 2])
    said = ask("search", "doab", "beekeepers", *NEEDED_BY[name])
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith(f"tickwork: cannot read {path}: ")
    assert said.err.endswith("Roll back: tickwork generations roll-back doab\n")
    assert path.exists() == (harm != "missing"), "a search writes nothing"
    assert ask("generations", "roll-back", "doab", "previous").code == 0
    assert ask("search", "doab", "beekeeping", *NEEDED_BY[name]).code == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", None])
def test_a_damaged_description_is_named(ask: Ask, service: Path, content: bytes | None) -> None:
    path = folder(service) / "meta.json"
    path.unlink() if content is None else path.write_bytes(content)
    said = ask("search", "doab", "beekeepers", "--mode", "words")
    assert said.code == 2
    assert str(path) in said.err
    assert "roll back to another generation" in said.err


def test_a_generation_of_a_model_that_is_gone_can_be_searched_by_words(
    ask: Ask, service: Path, made: Path, tmp_path: Path
) -> None:
    hidden = made / "model-elsewhere"
    (made / "model").rename(hidden)
    try:
        said = ask("search", "doab", "beekeepers")
        assert said.code == 2
        assert f"the model {made / 'model'} has no config.json" in said.err
        assert ask("search", "doab", "beekeepers", "--mode", "words").code == 0
    finally:
        hidden.rename(made / "model")
