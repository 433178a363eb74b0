"""The settings file: what is wrong with it is said with its name and the key."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from tickwork.contract import settings as module
from tickwork.contract.outcomes import OperatorError
from tickwork.contract.settings import Seconds, Settings, load, override


class Section(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    RENAMED: ClassVar[dict[str, str]] = {"rate": "interval_seconds"}
    interval_seconds: Seconds = 3.0
    name: str = "x"


def written(folder: Path, text: str) -> Path:
    path = folder / "tickwork.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, ""), ("doab",))
    assert (loaded.state, loaded.jobs, loaded.sources, loaded.allow_private) == ("", {}, {}, ())


def test_without_a_file_there_are_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_PATH", tmp_path / "absent.toml")
    assert load(None, ()) == Settings()


def test_the_file_in_its_usual_place_is_read_when_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEFAULT_PATH", written(tmp_path, 'mail = "a@b.example"'))
    assert load(None, ()).mail == "a@b.example"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('stat = "/x"', "stat"),
        ("state = 5", "state"),
        ("allow_private = '10.0.0.0/8'", "allow_private"),
        ("allow_private = [1]", "allow_private"),
        ('[jobs.nightly]\nlocks = "a"', "locks"),
        ('[jobs.nightly]\nlokcs = ["a"]', "lokcs"),
        ("[jobs.nightly]\ndrains = 1", "drains"),
        ("[jobs.nightly]\nhalt_after_failures = 'three'", "halt_after_failures"),
        ('[jobs.nightly]\ntimeout = "20 minutes"', "jobs.nightly.timeout"),
        ('[jobs.nightly]\nlock_wait = "soon"', "jobs.nightly.lock_wait"),
        ('[jobs.nightly]\nkill_after = ""', "jobs.nightly.kill_after"),
        ('[jobs.nightly]\nhalt_after_stalled = "1w"', "jobs.nightly.halt_after_stalled"),
        ("sources = {}", "sources"),
        ('path = "x"', "path"),
        ("doab = 5", "doab"),
        ("[daob]\nrate = 1", "daob"),
    ],
)
def test_a_wrong_key_or_type_names_the_file_and_the_key(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(OperatorError) as caught:
        load(path, ("doab",))
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("interval_seconds = 'fast'", "interval_seconds"),
        ("raet = 1", "raet"),
        ("interval_seconds = inf", "interval_seconds"),
    ],
)
def test_a_wrong_key_of_a_source_names_the_table_too(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, f"[doab]\n{text}")
    with pytest.raises(OperatorError) as caught:
        load(path, ("doab",)).section("doab", Section)
    assert all(word in str(caught.value) for word in (str(path), "[doab]", key))


def test_a_key_of_before_is_an_error_that_names_the_new_one(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"\[doab\] of .*: `rate` is now called `interval_seconds`"):
        load(written(tmp_path, "[doab]\nrate = 1\n"), ("doab",)).section("doab", Section)


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_an_option_is_checked_like_the_file(value: float) -> None:
    with pytest.raises(OperatorError, match=r"\[doab\]: `interval_seconds`: expected `float`"):
        override(Section(), "doab", interval_seconds=value)


def test_an_option_that_is_not_given_changes_nothing() -> None:
    assert override(Section(name="y"), "doab", interval_seconds=None) == Section(name="y")
    assert override(Section(name="y"), "doab", interval_seconds=1.5) == Section(name="y", interval_seconds=1.5)


def test_a_source_without_a_table_has_its_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), ("doab",)).section("doab", Section) == Section()


@pytest.mark.parametrize("content", [b"a = [", b"\xff\xfe", b"x", b"a = 1\na = 2"])
def test_what_is_not_toml_is_said_to_be_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tickwork.toml"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match=r"tickwork\.toml is not valid TOML"):
        load(path, ())


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"cannot read the settings .*absent\.toml: No such file"):
        load(tmp_path / "absent.toml", ())


def test_jobs_know_their_names(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, '[jobs.nightly]\nlocks = ["a"]\nschedule = "0 4 * * *"'), ())
    assert loaded.jobs["nightly"].name == "nightly"
    assert loaded.jobs["nightly"].locks == ("a",)


def test_folders_may_lie_elsewhere_and_deployed_locks_are_not_made_by_us(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, 'state = "/srv/tick"\nlock_dir = "/var/lock/tickwork"\nlog_dir = "/var/log/t"'), ())
    paths = loaded.paths(None)
    assert paths.database("doab") == Path("/srv/tick/db/doab.db")
    assert paths.job("j") == Path("/srv/tick/jobs/j")
    assert paths.lock("a") == Path("/var/lock/tickwork/a")
    assert paths.log("j") == Path("/var/log/t/j.log")
    assert paths.metrics_dir == Path("/srv/tick/metrics")
    assert not paths.makes_locks


def test_a_state_folder_on_the_command_line_moves_everything_below_it(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, 'state = "/srv/tick"\nlock_dir = "/var/lock/tickwork"'), ())
    paths = loaded.paths(tmp_path)
    assert paths.lock("a") == tmp_path / "locks" / "a"
    assert paths.makes_locks
