"""The OpenAPI document and the page of calls against the server that they describe."""

from __future__ import annotations

import html
import json
import re
import subprocess
from urllib.parse import quote

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from . import models
from .server import ServerProcess
from .test_hot import call, wait_for

LENGTH = "Inference-Header-Content-Length"


def document(server):
    status, headers, body = server.ask("/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)


@pytest.fixture(scope="module")
def found(server):
    return document(server)


def schema(found, name):
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": found["components"]})


def example_of(server, found, operation):
    """Body and headers of the request that the document shows for an operation."""
    content = found["components"]["requestBodies"][operation["requestBody"]["$ref"].rpartition("/")[2]]["content"]
    (example,) = next(kind["examples"] for kind in content.values() if "examples" in kind).values()
    if "value" in example:
        return json.dumps(example["value"]).encode(), {}
    status, headers, body = server.ask(example["externalValue"])
    assert status == 200
    return body, {LENGTH: headers[LENGTH]} if headers[LENGTH] else {}


def concrete(found):
    """The operations that ask one model."""
    return {path: item["post"] for path, item in found["paths"].items() if path.endswith("/infer") and "{" not in path}


def test_the_document_is_valid(found):
    OpenAPIV31SpecValidator(found).validate()


def test_every_model_that_serves_answers_the_request_that_the_document_shows(server, found):
    ready = {f"/v2/models/{one['name']}/versions/{one['version']}/infer" for one in json.loads(server.ask("/v2/repository/index", "POST", b"{}")[2])}
    operations = concrete(found)
    assert {path for path in operations if "/versions/" in path} == ready
    assert len(operations) > 20
    for path, operation in operations.items():
        body, headers = example_of(server, found, operation)
        status, told, answer = server.ask(path, "POST", body, headers)
        assert status == 200, (path, answer[:300])
        key = operation["requestBody"]["$ref"].rpartition("/")[2]
        size = int(headers[LENGTH]) if headers else len(body)
        schema(found, f"{key}.request").validate(json.loads(body[:size]))
        schema(found, f"{key}.response").validate(json.loads(answer[: int(told[LENGTH] or len(answer))]))


def test_every_path_has_the_methods_of_the_document_and_answers_what_it_says(server, found):
    """With the values that the document gives for parameters."""
    asked = 0
    for path, item in found["paths"].items():
        for method, operation in item.items():
            target, query = path, []
            for parameter in operation["parameters"]:
                if parameter.get("in") == "path":
                    target = target.replace(f"{{{parameter['name']}}}", quote(parameter["example"], safe=""))
                elif parameter.get("in") == "query":
                    query.append(f"{parameter['name']}={parameter['example']}")
            if target.endswith(("/unload", "/rollback")) or (method == "delete" and not target.endswith("/tuning")):
                continue    # other tests'
            status, headers, body = server.ask("?".join([target, *query]), method.upper(), b"{}" if method == "post" else None)
            missing = (405, 500) if "/rollout" in target else (404, 405, 500)       # there is none
            assert status not in missing, (method, target, body)
            assert status != 501 or ":" in target, (method, target, body)      # what TensorFlow Serving has, and this server has not
            assert str(status) in operation["responses"], (method, target, status)
            answer = operation["responses"]["200"] if status == 200 else found["components"]["responses"][f"E{status}"]
            kind = (headers["content-type"] or "").partition(";")[0]
            assert kind in answer.get("content", {"": {}}), (method, target, kind)
            if kind == "application/json":
                jsonschema.Draft202012Validator({**answer["content"][kind]["schema"], "components": found["components"]}).validate(json.loads(body))
            asked += 1
    assert asked > 50


def test_the_document_follows_the_models(tmp_path):
    models.linear(tmp_path / "registry")
    models.lookup(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry") as server:
        assert "/v2/models/lookup/infer" in concrete(document(server))
        assert call(server, "lookup/unload") == (200, "{}")
        assert {path.split("/")[3] for path in concrete(document(server))} == {"linear"}
        models.linear(tmp_path / "registry", "new model")
        wait_for(lambda: "/v2/models/new%20model/versions/1/infer" in concrete(document(server)))
        assert b"new model" in server.ask("/docs")[2]


def test_a_server_without_models_describes_itself(tmp_path):
    (tmp_path / "registry").mkdir()
    with ServerProcess(tmp_path / "registry") as server:
        OpenAPIV31SpecValidator(document(server)).validate()
        assert b"No version is ready" in server.ask("/docs")[2]


def test_the_commands_of_the_page_work_as_they_stand(server, tmp_path):
    status, headers, body = server.ask("/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    commands = [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", body.decode(), re.S)]
    inferences = [command for command in commands if "/infer -d '{" in command or "/example |" in command]
    assert len(inferences) == len({path for path in concrete(document(server)) if "/versions/" in path})
    for command in inferences:
        answer = tmp_path / "answer"
        shown = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, timeout=30, check=True).stdout or answer.read_bytes()
        assert b'"model_version"' in shown, (command, shown[:300])
        answer.unlink(missing_ok=True)
    for command in commands:
        simple = command.startswith("curl -s") and " -" not in command.removeprefix("curl -s") and "\n" not in command
        if simple and not command.endswith("/rollout"):     # there is none
            subprocess.run(["bash", "-c", f"{command} --fail -o /dev/null"], timeout=30, check=True)
