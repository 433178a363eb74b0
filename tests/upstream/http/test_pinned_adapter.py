"""The connection goes to the address that was judged, under the name that was asked for."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upstreams.plain import Plain, answer
from tickwork.contract.outcomes import Transient
from tickwork.contract.stop import Stop
from tickwork.upstream.http.errors import UnsafeUrl
from tickwork.upstream.http.guard import Guard
from tickwork.upstream.http.session import Upstream
from tickwork.upstream.policy import Policy
from tickwork.upstream.slots import Slots

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is absent"
)
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem) and a certificate of its for pds.test and 127.0.0.1 (leaf.pem, leaf.key)."""
    folder = tmp_path_factory.mktemp("authority")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "leaf.ext").write_text("subjectAltName=DNS:pds.test,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority", "-days", "2")
    openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=pds.test")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "leaf.ext", "-days", "2")
    openssl("x509", "-req", "-in", "leaf.csr", *signed, "-out", "leaf.pem")
    return folder


@pytest.fixture
def server(authority: Path) -> Iterator[Plain]:
    certificate = (str(authority / "leaf.pem"), str(authority / "leaf.key"))
    with Plain({"/": answer(200, b"secret")}, certificate=certificate) as running:
        yield running


class Names:
    """A resolver that answers from a list, one answer a question, and keeps count."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


def session(tmp_path: Path, names: Names, ca: Path | None) -> Upstream:
    return Upstream(
        "pds",
        slots=Slots(tmp_path / "slots.db"),
        guard=Guard([LOOPBACK], resolve=names),
        stop=Stop(),
        contact="https://c.example",
        policy=Policy(interval_seconds=0, retries=0, connect_seconds=2),
        ca_bundle=ca,
    )


def test_name_sni_and_host_header_are_those_of_the_url(server: Plain, authority: Path, tmp_path: Path) -> None:
    names = Names(["127.0.0.1"])
    with session(tmp_path, names, authority / "ca.pem") as upstream:
        assert upstream.get(server.url(host="pds.test")).content == b"secret"
        assert upstream.get(server.url(host="PDS.test.")).content == b"secret"
        assert upstream.get(server.url()).content == b"secret", "an address in the certificate"
    assert [request.sni for request in server.requests] == ["pds.test", "pds.test", ""]
    assert server.requests[0].headers["Host"] == f"pds.test:{server.port}"
    assert names.asked == ["pds.test"], "a kept connection needs no second look-up, an address none"


@pytest.mark.parametrize("host", ["other.test", "pds.test.evil.test"])
def test_a_certificate_for_another_name_is_refused(server: Plain, authority: Path, tmp_path: Path, host: str) -> None:
    with (
        session(tmp_path, Names(["127.0.0.1"]), authority / "ca.pem") as upstream,
        pytest.raises(Transient, match=r"SSL.*[Hh]ostname mismatch"),
    ):
        upstream.get(server.url(host=host))
    assert server.requests == []


def test_an_unknown_authority_is_refused(
    server: Plain, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(authority / "ca.pem"))
    with (
        session(tmp_path, Names(["127.0.0.1"]), None) as upstream,
        pytest.raises(Transient, match="certificate verify failed"),
    ):
        upstream.get(server.url(host="pds.test"))
    assert server.requests == []


def test_a_second_dns_answer_changes_nothing(server: Plain, authority: Path, tmp_path: Path) -> None:
    names = Names(["127.0.0.1"], ["10.0.0.5"])
    with session(tmp_path, names, authority / "ca.pem") as upstream:
        upstream.get(server.url(host="pds.test"))
    assert names.asked == ["pds.test"]
    with session(tmp_path, names, authority / "ca.pem") as upstream, pytest.raises(UnsafeUrl, match=r"10\.0\.0\.5"):
        upstream.get(server.url(host="pds.test"))
    assert len(server.requests) == 1


def test_the_next_address_is_tried_when_one_does_not_answer(server: Plain, authority: Path, tmp_path: Path) -> None:
    names = Names(["10.0.0.5", "127.0.0.9", "127.0.0.1"])
    with session(tmp_path, names, authority / "ca.pem") as upstream:
        assert upstream.get(server.url(host="pds.test")).content == b"secret"


def test_https_never_becomes_http(server: Plain, authority: Path, tmp_path: Path) -> None:
    with Plain({"/": answer(200, b"open")}) as plain:
        server.replies["/"] = answer(302, Location=plain.url())
        with (
            session(tmp_path, Names(["127.0.0.1"]), authority / "ca.pem") as upstream,
            pytest.raises(UnsafeUrl, match="redirects from https to http"),
        ):
            upstream.get(server.url(host="pds.test"))
        assert plain.requests == []
