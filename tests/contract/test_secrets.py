"""Secrets are read from where nobody else can, or not at all."""

from __future__ import annotations

import os
import re
import socket
import traceback
from pathlib import Path

import pytest

from tickwork.contract.outcomes import OperatorError
from tickwork.contract.secrets import MAX_BYTES, read_secret

KEY = "[pulse] password"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("hunter2")
    path.chmod(0o600)
    return path


def refusal(named: object) -> str:
    """How reading is refused; nothing of the secret is in it, nor in what a traceback would show."""
    with pytest.raises(OperatorError) as refused:
        read_secret(KEY, str(named))
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    assert str(refused.value).startswith(f"{KEY}: ")
    return str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400])
@pytest.mark.parametrize(
    ("content", "secret"),
    [
        ("hunter2", "hunter2"),
        ("hunter2\n", "hunter2"),
        ("hunter2\n\n", "hunter2\n"),
        (" hunter 2 ", " hunter 2 "),
        ("pässwörd\n", "pässwörd"),
        ("x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)
def test_a_secret_is_the_files_content_without_one_newline_at_its_end(
    file: Path, mode: int, content: str, secret: str
) -> None:
    file.write_text(content)
    file.chmod(mode)
    assert read_secret(KEY, str(file)) == secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o4640, 0o777])
def test_a_file_that_others_may_touch_is_refused_with_its_mode_and_the_command_that_mends_it(
    file: Path, mode: int
) -> None:
    file.chmod(mode)
    said = refusal(file)
    assert f"{file} has mode {mode:04o}" in said
    mend = re.search(r"Run: (chmod 0600 .+)", said)
    assert mend
    assert os.system(mend[1]) == 0
    assert read_secret(KEY, str(file)) == "hunter2"


def test_the_command_that_mends_a_file_survives_a_blank_in_its_path(tmp_path: Path) -> None:
    path = tmp_path / "the pass word"
    path.write_text("hunter2")
    path.chmod(0o644)
    assert f"chmod 0600 '{path}'" in refusal(path)


def test_a_file_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    assert f"{file} belongs to user {file.stat().st_uid}" in refusal(file)


def test_a_link_is_refused_even_to_a_good_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert "it is a link" in refusal(tmp_path / "link")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a regular file" in refusal(tmp_path / "pipe")
    (tmp_path / "folder").mkdir(0o700)
    assert "is not a regular file" in refusal(tmp_path / "folder")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert "cannot read the secret" in refusal(tmp_path / "socket")
    assert "is not a regular file" in refusal("/dev/zero")
    assert "No such file" in refusal(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "is not UTF-8 text"),
        (b"x" * (MAX_BYTES + 1), "has more than 65536 bytes"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)
    assert why in refusal(file)


def test_a_credential_of_the_unit_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # systemd may leave it to root, and let the unit in by an access list: mode and owner say nothing there.
    (tmp_path / "amqp").write_text("hunter2\n")
    (tmp_path / "amqp").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(KEY, "amqp") == "hunter2"
    assert f"cannot read the secret in {tmp_path / 'other'}" in refusal("other")


@pytest.mark.parametrize("name", ["", ".", "..", "../password", "folder/password", "./password"])
def test_neither_a_relative_path_nor_nothing_names_a_credential(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "neither an absolute path nor the name of a credential" in refusal(name)


def test_a_credential_without_a_unit_says_how_to_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "LoadCredential=amqp:FILE" in refusal("amqp")
