"""What a checkout and the Python package bring besides the programs."""

from __future__ import annotations

import re
import tomllib

import yaml

from tests.kits.wrappers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_package_says_that_it_is_typed() -> None:
    (package,) = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert (ROOT / package / "py.typed").read_bytes() == b"", "the wheel has all files of the package"
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_the_changelog_tells_of_this_version_and_of_what_comes() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", PROJECT["project"]["version"]]


def test_what_lints_before_a_commit_is_what_the_tests_lint() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert (repository["repo"], hook["language"], hook["entry"]) == ("local", "system", "./test.sh --lint")
    script = (ROOT / "test.sh").read_text()
    lint, _, tests = script.partition('[ "$tier" != lint ] || exit 0\n')
    assert tests.count('step "pytest') == 1
    assert re.findall(r'^step "([^"]*)" (\S+)', lint, re.MULTILINE), "every linter comes before"
    assert not re.findall(r"^step .*(ruff|mypy|lint|shell)", tests, re.MULTILINE)
