"""The tree of errors: each has all that the page of errors tells, and what the data plane answers is in its table."""

import re
from pathlib import Path

import pytest

from batchmill import errors
from batchmill.core.histogram import CODE_NAMES
from batchmill.errors import DATA_PLANE, BatchmillError

ROOT = Path(__file__).resolve().parent.parent
SET = re.compile(r'\bk([A-Z]\w+), b"([A-Z][A-Z_]+)"')          # status.set(kNotFound, b"NOT_FOUND", ...) and its kin
HTTP1 = re.compile(r'answer_text\(\w+, \w+, \w+, b"([A-Z][A-Z_]+)"')   # HTTP/1.1's, which has no code
USUAL = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "UNIMPLEMENTED": 501,
         "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "CANCELLED": 499, "INTERNAL": 500, "ABORTED": 409}
UNUSUAL = {"BODY_TOO_LARGE": 413, "HEADERS_TOO_LARGE": 431, "BODY_TOO_SLOW": 408, "UNSUPPORTED_COMPRESSION": 415, "UNKNOWN_CALL": 404, "WRONG_METHOD": 405}    # HTTP has a closer word


def tree(above=BatchmillError):
    for one in above.__subclasses__():
        yield one
        yield from tree(one)


def sources():
    return [path.read_text() for path in sorted((ROOT / "ext/batchmill/core").glob("*.pyx"))]


def snake(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def test_every_reason_of_the_data_plane_is_in_the_table_with_its_code_and_nothing_else_is():
    found = {(reason, snake(code)) for text in sources() for code, reason in SET.findall(text)}
    told = {(one.reason, CODE_NAMES[one.code]) for one in DATA_PLANE}
    assert {reason for text in sources() for reason in HTTP1.findall(text)} <= {reason for reason, _ in told}
    assert found == told - {("BAD_REQUEST", "INVALID_ARGUMENT")}
    assert len(found) > 20   # or the expressions have gone blind


@pytest.mark.parametrize("one", [*tree(), *DATA_PLANE], ids=lambda one: getattr(one, "__name__", one.reason))
def test_an_error_says_when_it_happens_what_to_do_and_how_it_is_answered(one):
    when = one.when if hasattr(one, "when") else one.__doc__
    assert when.strip().endswith(".")
    assert one.advice.endswith(".")
    assert re.fullmatch("[A-Z]+(_[A-Z]+)*", one.reason)
    assert one.http_status in (0, UNUSUAL.get(one.reason, USUAL[CODE_NAMES[one.code]]))


def test_no_two_errors_are_told_apart_by_nothing():
    """A reason and a code are one cause, or the same one seen from Python and from the data plane."""
    for table in ([one for one in tree() if one is not errors.InternalError], DATA_PLANE):
        keys = [(one.reason, one.code) for one in table]
        assert len(keys) == len(set(keys))


def test_the_drawing_at_the_top_has_every_class():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert drawn == [one.__name__ for one in sorted(tree(), key=lambda one: drawn.index(one.__name__))]
    assert len(drawn) == len([*tree()])
