"""nginx before the search service, as the role configures it: in a network of its own, where the ports are free."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from tests.kits.wrappers import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None, reason="no nginx here"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root"),
]

# Asks within that network, once both listen; the answers come back on stdout.
ASK = """
import http.client, json, socket, ssl, sys, time
for port in (8001, int(sys.argv[1])):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
plain = http.client.HTTPConnection("127.0.0.1", 80)
secure = http.client.HTTPSConnection("127.0.0.1", 443, context=ssl._create_unverified_context())
said = []
for connection in (plain, secure)[:1 if sys.argv[1] == "80" else 2]:
    connection.request("GET", "/?q=salt", headers={"Host": "books.example.org", "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    said.append([answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read().decode()])
print(json.dumps(said))
"""
SERVICE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers['Host']} {self.headers['X-Forwarded-Proto']}".encode())
http.server.HTTPServer(("127.0.0.1", 8001), Handler).serve_forever()
"""


def asked(folder: Path, port: int, **variables: str) -> list[list[object]]:
    """What nginx answers at port 80, and at 443 where it speaks TLS: status, headers, body."""
    environment = Environment(loader=FileSystemLoader(ROOT / "templates"), trim_blocks=True, keep_trailing_newline=True)
    known = {"ansible_managed": "by a test", "search_listen": "127.0.0.1:8001", "search_tls_certificate": ""}
    site = environment.get_template("search.nginx.j2").render(
        search_server_name="books.example.org", **known | variables
    )
    (folder / "site").write_text(site)
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;"
        f" include {folder}/site; }}\n"
    )
    (folder / "service.py").write_text(SERVICE)
    (folder / "ask.py").write_text(ASK)
    script = f"""
        ip link set lo up
        {sys.executable} {folder}/service.py 2>/dev/null &
        PATH=$PATH:/usr/sbin nginx -c {folder}/nginx.conf -g 'daemon off; master_process off;' &
        {sys.executable} {folder}/ask.py {port}
    """
    # With a process namespace of its own: both servers end with the shell.
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + site
    answers: list[list[object]] = json.loads(done.stdout)
    return answers


def test_it_passes_requests_on(tmp_path: Path) -> None:
    ((status, _, body),) = asked(tmp_path, 80)
    assert (status, body) == (200, "/?q=salt books.example.org http")


def test_with_a_certificate_it_speaks_tls_and_leads_there(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=books.example.org", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    plain, secure = asked(tmp_path, 443, search_tls_certificate=str(certificate), search_tls_key=str(key))
    assert plain[0] == 301
    assert plain[1]["location"] == "https://books.example.org/?q=salt"  # type: ignore[index]
    assert secure[0] == 200
    assert secure[2] == "/?q=salt books.example.org https"
    assert secure[1]["strict-transport-security"] == "max-age=31536000"  # type: ignore[index]
