"""The OpenAPI document and the page of calls: valid for whatever models there are, escaped, and never long at one piece."""

import json
import re
import shlex
import sys
import threading
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from batchmill.endpoints import docs_page, openapi, rest, signature_schema
from batchmill.endpoints.calls import CALLS
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.live_traffic import routed
from batchmill.errors import InvalidRequest, NotFound
from batchmill.registry.status import ModelStatus, VersionStatus

from .fakes import Call
from .statuses import MODELS
from .test_asgi import handled

FREE = ("x", "FP32", [-1, 8], ["n", ""])
ODD_NAMES = ["a b", "a/b"[:1] + "%2f", "é", "日本", "{model}", "<script>alert(1)</script>", "a\"b'c", "a_b", "a-b", "a.b", "$(id)", "`id`", "a;b", "&amp;", "#", "?x=1", "..."]


def served(name, number="1", inputs=(FREE,), outputs=(("y", "FP32", [-1, 4], ["n", ""]),), **options):
    return VersionStatus(number, "READY", served=SimpleNamespace(name=name, version=number), **options,
                         model=SimpleNamespace(inputs=[*inputs], outputs=[*outputs], memory_bytes=0))


def models(*statuses):
    return {status.name: status for status in statuses}


def one(name, *versions):
    return ModelStatus(name, versions={version.number: version for version in versions})


def document(of):
    found = json.loads(openapi.OpenApi(lambda: of).document())
    OpenAPIV31SpecValidator(found).validate()
    return found


def resolved(found, schema):
    """A schema that jsonschema can hold something against."""
    return jsonschema.Draft202012Validator({**schema, "components": found["components"]})


SIGNATURES = [
    (), (FREE,), (("s", "INT64", [], []),), (("a", "BOOL", [2, 0], ["", ""]), ("b", "BYTES", [-1], [""])), (("h", "FP16", [-1, 3], ["n", ""]),),
    (("h", "BF16", [2], [""]), FREE), (("big", "UINT8", [-1, 32, 32, 3], ["", "", "", ""]),), (("é\"<&'\n", "INT8", [3], [""]),),
]


PAIRS = [(inputs, outputs) for inputs in SIGNATURES for outputs in SIGNATURES[3:6]]


@pytest.fixture(scope="module")
def of_all_signatures():
    """To see whether a document is valid takes seconds: one has them all."""
    return document(models(*(one(f"m{place}", served(f"m{place}", inputs=inputs, outputs=outputs)) for place, (inputs, outputs) in enumerate(PAIRS))))


@pytest.fixture(scope="module")
def of_one():
    return document(models(one("m", served("m"))))


@pytest.fixture(scope="module")
def of_odd_names():
    of = {name: models(one(name, served(name, inputs=((name, "FP32", [-1, 2], [name, ""]),)))) for name in ODD_NAMES}
    document({name: status for each in of.values() for name, status in each.items()})
    return of


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_a_document_is_valid_whatever_a_model_takes(of_all_signatures, place):
    found, (inputs, outputs) = of_all_signatures, PAIRS[place]
    example = signature_schema.example(inputs, outputs)
    request = json.loads(example.body[: example.json_bytes])
    resolved(found, found["components"]["schemas"][f"m{place}.1.request"]).validate(request)
    assert [one["shape"] for one in request["inputs"]] == [[max(size, 1) if size < 0 else size for size in shape] for _, _, shape, _ in inputs]
    assert len(example.body) - example.json_bytes == sum(one["parameters"]["binary_data_size"] for one in request["inputs"] if "parameters" in one)
    (told,) = next(body["examples"] for body in found["components"]["requestBodies"][f"m{place}.1"]["content"].values() if "examples" in body).values()
    assert told["value"] == request if signature_schema.is_inline(inputs) else told["externalValue"] == f"/docs/models/m{place}/versions/1/example"


@pytest.mark.parametrize(("wrong", "place"), [
    ({"inputs": []}, "inputs"), ({}, "inputs"), ({"inputs": [{"name": "y", "datatype": "FP32", "shape": [1, 8], "data": []}]}, "name"),
    ({"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 8], "data": []}]}, "datatype"),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 9], "data": []}]}, "shape"),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [8], "data": []}]}, "shape"),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 8], "data": []}]}, "shape"),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": ["one"]}]}, "data"),
    ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1]}], "outputs": [{"name": "z"}]}, "outputs"),
])
def test_a_request_that_the_model_would_refuse_is_none_of_its_schema(of_one, wrong, place):
    with pytest.raises(jsonschema.ValidationError):
        resolved(of_one, of_one["components"]["schemas"]["m.1.request"]).validate(wrong)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_makes_a_valid_document_and_a_page_without_anything_of_it_as_html(of_odd_names, name):
    of = {**of_odd_names[name], **models(one("m", served("m")))}
    found = json.loads(openapi.OpenApi(lambda: of).document())
    assert len([path for path in found["paths"] if path.endswith("/infer") and "{" not in path]) == 4
    page = openapi.OpenApi(lambda: of).page("http://localhost:1").decode()
    reader = Reader(page)
    assert reader.tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "a", "pre", "code", "span", "small", "table", "tr", "th", "td"}
    assert name in reader.headings[1]
    command = shlex.split(next(text for text in reader.commands if " -d {" in text or "'{" in text))
    assert json.loads(command[command.index("-d") + 1])["inputs"][0]["name"] in (name, "x")


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.headings, self.commands, self.at, self.attributes = set(), [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        self.at = tag
        if tag in ("h2", "h3"):
            self.headings.append("")
        elif tag == "pre":
            self.commands.append("")

    def handle_data(self, text):
        if self.at == "pre":
            self.commands[-1] += text
        elif self.at in ("h2", "h3"):
            self.headings[-1] += text


def test_two_names_never_share_a_component():
    names = [*ODD_NAMES, "a_5f_b", "a_b_", "_", "__", "a", "a.1", "a1"]
    keys = {openapi.key_of(name, number) for name in names for number in ("1", "11")}
    assert len(keys) == 2 * len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in keys)


def test_every_path_of_the_application_is_in_the_document_and_no_other():
    routes = {route.path for route in rest.application(Catalog(lambda: {}), None, None, routed(*[None] * 4)).routes if isinstance(route, Route)}
    assert routes == {path for call in CALLS for path in call.paths()}
    assert set(document({})["paths"]) == routes


def test_versions_come_and_go_and_what_stays_is_not_made_again(monkeypatch):
    now = models(one("a", served("a"), served("a", "2")), one("b", served("b")), one("broken", VersionStatus("1", "FAILED", "cut")))
    source = openapi.OpenApi(lambda: now)
    made, describe = [], openapi.describe
    monkeypatch.setattr(openapi, "describe", lambda *of: made.append(of[:2]) or describe(*of))

    def paths():
        return sorted(path.removeprefix("/v2/models/").removesuffix("/infer") for path in json.loads(source.document())["paths"]
                      if path.endswith("/infer") and "{" not in path)

    assert paths() == ["a", "a/versions/1", "a/versions/2", "b", "b/versions/1"]
    assert paths()
    assert made == [("a", "1"), ("a", "2"), ("b", "1")]
    now = models(one("a", served("a"), served("a", "2", inputs=(FREE, FREE))), one("c", served("c")))
    assert paths() == ["a", "a/versions/1", "a/versions/2", "c", "c/versions/1"]
    assert made[3:] == [("a", "2"), ("c", "1")]
    assert source._known.keys() == {("a", "1"), ("a", "2"), ("c", "1")}


def test_a_default_version_may_be_asked_without_its_number_and_one_on_hold_may_not():
    found = document(models(one("m", served("m"), served("m", "2", pinned=True))))
    assert found["paths"]["/v2/models/m/infer"]["post"]["requestBody"] == {"$ref": "#/components/requestBodies/m.1"}
    assert "/v2/models/m/versions/2/infer" in found["paths"]


@pytest.mark.parametrize("what", ["document", "page"])
def test_a_thousand_models_do_not_hold_the_interpreter(what):
    """The longest that another thread waits while it is made, the best of some runs: other processes may hold us up as well."""
    inputs = [(f"input_{at}", "FP32", [-1, 64], ["batch", ""]) for at in range(4)]
    of = models(*(one(f"model_{at}", served(f"model_{at}", inputs=inputs), served(f"model_{at}", "2", inputs=inputs)) for at in range(1000)))
    longest = []
    for _ in range(5):
        source, done, gaps = openapi.OpenApi(lambda: of), threading.Event(), [0.0]

        def watch(done=done, gaps=gaps):
            before = time.perf_counter()
            while not done.is_set():
                time.sleep(0.0005)
                now = time.perf_counter()
                gaps.append(now - before)
                before = now

        watcher = threading.Thread(target=watch)
        watcher.start()
        made = source.document() if what == "document" else source.page("http://localhost:1")
        done.set()
        watcher.join()
        assert len(made) > 1_000_000
        longest.append(max(gaps))
        if longest[-1] < 0.05:
            break
    assert min(longest) < 0.05, longest
    assert sys.getswitchinterval() < 0.05   # by which a thread of Python lets another run


@pytest.mark.parametrize(("target", "status", "kind"), [
    ("/openapi.json", 200, b"application/json"), ("/docs", 200, b"text/html; charset=utf-8"), ("/docs/models/m/versions/2/example", 200, b"application/json"),
    ("/docs/models/m/versions/3/example", 404, b"application/json"), ("/docs/models/nobody/versions/1/example", 404, b"application/json"),
    ("/docs/models/m/versions/../example", 404, b"application/json"), ("/docs/", 404, b"application/json"),
])
def test_the_pages_are_answered(target, status, kind):
    call = handled(rest.application(Catalog(lambda: MODELS), None, None), Call(target))
    assert (call.status, call.answer_headers.get(b"content-type")) == (status, kind)


@pytest.mark.parametrize(("host", "origin"), [
    ("localhost:8000", "http://localhost:8000"), ("models.example", "http://models.example"), ("[::1]:9", "http://[::1]:9"), ("127.0.0.1:80", "http://127.0.0.1:80"),
    ("", "http://localhost:8000"), ("evil$(id)", "http://localhost:8000"), ("evil one", "http://localhost:8000"), ('"><script>', "http://localhost:8000"),
    ("a;id", "http://localhost:8000"), ("a" * 300, "http://localhost:8000"), ("a:123456", "http://localhost:8000"), ("a\n", "http://localhost:8000"),
])
def test_a_host_that_is_made_up_does_not_get_into_the_commands(host, origin):
    call = handled(rest.application(Catalog(lambda: MODELS), None, None), Call("/docs", headers=[(b"host", host.encode())]))
    page = call.body_sent.decode()
    assert f"curl -s {origin}/v2</pre>" in page
    assert "\0" not in page
    assert host == origin.removeprefix("http://") or not host or host not in page


def test_the_page_takes_nothing_from_the_network_and_says_so_to_the_browser():
    call = handled(rest.application(Catalog(lambda: MODELS), None, None), Call("/docs"))
    page = call.body_sent.decode()
    policy = call.answer_headers[b"content-security-policy"].decode()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http:" not in policy
    links = [value for name, value in Reader(page).attributes if name in ("href", "src", "action", "style") or name.startswith("on")]
    assert links == ["/openapi.json"]
    assert page.count("<style>") == 1
    assert docs_page.STYLE in page


def test_an_example_that_nobody_could_send_is_refused():
    of = models(one("m", served("m", inputs=(("x", "FP32", [1 << 20, 1 << 20], ["", ""]),))))
    with pytest.raises(InvalidRequest, match="more than"):
        openapi.OpenApi(lambda: of).example("m", "1")
    with pytest.raises(NotFound):
        openapi.OpenApi(lambda: of).example("m", "")
    document(of)


def test_the_page_shows_a_body_for_each_call_that_takes_one_and_the_document_accepts_it():
    found = document({})
    page = openapi.OpenApi(lambda: {}).page("http://localhost:8000").decode()
    for path, item in found["paths"].items():
        for operation in item.values():
            kind = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in kind:
                resolved(found, kind["schema"]).validate(kind["example"])
            elif kind and not path.endswith(("/infer", ":predict", ":classify", ":regress", "/load", "/unload")):
                raise AssertionError(path)
    assert """admin/models/digits/route -X PUT -d &#x27;{&quot;weights&quot;""" in page
