"""Where a REST path leads."""

import pytest

from batchmill.core import rest


@pytest.mark.parametrize(("method", "target", "wanted"), [
    (b"POST", b"/v2/models/m/infer", ("infer", b"m", b"", b"")),
    (b"POST", b"/v2/models/m/infer?a=b", ("infer", b"m", b"", b"")),
    (b"POST", b"/v2/models/a%20b/versions/3/infer", ("infer", b"a b", b"3", b"")),
    (b"POST", b"/v2/models/m/labels/stable/infer", ("infer", b"m", b"", b"stable")),
    (b"GET", b"/v2/models/m/infer", ("method_not_allowed", b"m", b"", b"")),
    (b"GET", b"/v2/models/m/ready", ("model_ready", b"m", b"", b"")),
    (b"HEAD", b"/v2/models/m/versions/1/ready", ("model_ready", b"m", b"1", b"")),
    (b"GET", b"/v2/health/live", ("live", b"", b"", b"")),
    (b"GET", b"/livez", ("live", b"", b"", b"")),
    (b"GET", b"/readyz", ("ready", b"", b"", b"")),
    (b"POST", b"/v2/health/ready", ("method_not_allowed", b"", b"", b"")),
    (b"GET", b"/v2/models/m", ("cold", b"m", b"", b"")),
    (b"GET", b"/v2", ("cold", b"", b"", b"")),
    (b"GET", b"/v2/models", ("cold", b"", b"", b"")),
    (b"POST", b"/v2/models/m/infer/x", ("cold", b"m", b"", b"")),
    (b"POST", b"/v2/models/m%zz/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/m%00/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/m%0d%0a/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models//infer", ("bad_path", b"", b"", b"")),
    (b"POST", b"/v2/models/m%/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/m%4/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/m%7f/infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/m/versions//infer", ("bad_path", b"m", b"", b"")),
    (b"POST", b"/v2/models/%C3%A9%2Fx/infer", ("infer", b"\xc3\xa9/x", b"", b"")),
    (b"POST", b"/v2/models/m/versions/1/labels/l/infer", ("cold", b"m", b"1", b"")),
    (b"HEAD", b"/v2/models/m/infer", ("method_not_allowed", b"m", b"", b"")),
    (b"post", b"/v2/models/m/infer", ("method_not_allowed", b"m", b"", b"")),
    (b"POST", b"/v2/models/m/ready", ("method_not_allowed", b"m", b"", b"")),
    (b"DELETE", b"/livez", ("method_not_allowed", b"", b"", b"")),
    (b"HEAD", b"/healthz?verbose", ("live", b"", b"", b"")),
    (b"GET", b"/v2/health/ready/", ("cold", b"", b"", b"")),
    (b"POST", b"/v2/models/..%2f../infer", ("infer", b"../..", b"", b"")),  # a name like any other: unknown, and never a file
])
def test_a_path_leads_where_it_should(method, target, wanted):
    assert rest.route_of(method, target) == wanted
