"""The JSON API is what its OpenAPI file says: schemathesis asks the running service, with sense and with nonsense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

import tickwork.serve
from tests.kits.serve import Process, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EXAMPLES = 60
FILE = Path(tickwork.serve.__file__).parent / "openapi.json"
DESCRIBED = schemathesis.openapi.from_path(FILE)
DESCRIBED.config.checks.negative_data_rejection.expected_statuses = ["400", "404", "405", "414"]
DESCRIBED.config.generation = GenerationConfig(modes=list(schemathesis.GenerationMode))
CHECKS = [
    *(not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance),
    *(response_schema_conformance, negative_data_rejection, positive_data_acceptance, unsupported_method),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("api"), 60) as service:
        yield service


@DESCRIBED.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: Any, service: Process) -> None:
    # Which filters make sense depends on the fields of the corpora: no schema says that.
    filtered = isinstance(case.query, dict) and "f" in case.query
    checks = [check for check in CHECKS if not (filtered and check is positive_data_acceptance)]
    case.call_and_validate(base_url=service.url, checks=checks)


def test_nothing_is_left_undescribed(service: Process) -> None:
    status, body = service.get("/api/openapi.json")
    assert status == 200
    assert set(json.loads(body)["paths"]) == {
        *("/api/search", "/api/corpora", "/api/items/{corpus}/{id}", "/api/items/{corpus}/{id}/similar"),
    }


@pytest.mark.parametrize("mode", ["words", "meaning", "both"])
def test_a_result_leads_to_its_item_and_those_like_it(service: Process, mode: str) -> None:
    status, body = service.get(f"/api/search?q=irrigation&mode={mode}&limit=3")
    assert status == 200
    said = json.loads(body)
    assert said["mode"] == mode
    for result in said["results"]:
        status, body = service.get(f"/api/items/doab/{result['id']}")
        assert (status, json.loads(body)["title"]) == (200, result["title"])
        status, body = service.get(f"/api/items/doab/{result['id']}/similar?limit=5")
        others = [other["id"] for other in json.loads(body)["results"]]
        assert len(others) == 5
        assert result["id"] not in others


def test_the_file_of_the_package_is_what_is_served(service: Process) -> None:
    assert service.get("/api/openapi.json")[1] == FILE.read_bytes()
