"""The commands of README.md, typed one after the other as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kits.deployment import Deployment
from tests.kits.documents import README, commands
from tests.kits.patience import PATIENCE_SECONDS
from tests.kits.serve import Process
from tests.kits.vectors import config, make_state, tiny_model
from tests.upstreams.books import generated_books
from tests.upstreams.oai import FakeOai

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BOOKS = 1300  # more than the number of any that README.md asks for


def test_they_work_as_they_stand(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    make_state(deployment.state, BOOKS)
    environment = {**os.environ, "TICKWORK_CONFIG": str(deployment.config), "TICKWORK_STATE": str(deployment.state)}
    typed = commands(README)
    assert {"harvest", "embed", "publish", "search", "similar", "serve"} <= {word for words in typed for word in words}
    with FakeOai(generated_books(50)) as oai:
        deployment.config.write_text(
            f'contact = "https://example.org/contact"\nallow_private = ["127.0.0.0/8"]\n'
            f'[doab]\nbase_url = "{oai.base_url}"\ninterval_seconds = 0.0\n{config(tiny_model(tmp_path / "model"))}'
        )
        for words in typed:
            if words == ["serve"]:
                with Process(deployment, tmp_path) as service:
                    assert service.get("/")[0] == 200
                continue
            done = subprocess.run(
                [sys.executable, "-m", "tickwork", *words],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=10 * PATIENCE_SECONDS,
                check=False,
            )
            assert done.returncode in (0, 3), (words, done.stdout, done.stderr)
