"""Rollouts, shadows and the audit trail over gRPC: the same as over REST, for the same callers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc

from batchmill.chain import Head, verified_export
from batchmill.proto import admin_pb2 as pb
from batchmill.proto import admin_pb2_grpc
from reference.messages import lost

from . import models
from .server import ServerProcess
from .test_hot import ROW, wait_for
from .test_rich_status import details_of
from .test_routes import versions_of
from .test_shadow import serve_first

DOCS = Path(__file__).resolve().parents[2] / "docs"
BASE, KEY = "/admin/models/linear", "a-secret-of-16-characters"
BODY = json.dumps({"inputs": ROW}).encode()
OFF = pb.Gates(latency_ratio=pb.LatencyRatioGate(disabled=True))  # the machine is not a test's own
CALLS = {  # and a request that is about a model that is not there
    "StartRollout": pb.StartRolloutRequest(model="none", version="2"), "GetRollout": pb.GetRolloutRequest(model="none"),
    "ApproveRollout": pb.ApproveRolloutRequest(model="none"), "AbortRollout": pb.AbortRolloutRequest(model="none"),
    "SetShadow": pb.SetShadowRequest(model="none", version="2"), "GetShadow": pb.GetShadowRequest(model="none"),
    "StopShadow": pb.StopShadowRequest(model="none"), "GetWorstShadow": pb.GetWorstShadowRequest(model="none"),
}  # fmt: skip
GUARDED = ("StartRollout", "ApproveRollout", "AbortRollout", "SetShadow", "StopShadow", "GetWorstShadow")


@pytest.fixture
def registry(tmp_path):
    return models.candidates(tmp_path / "registry")


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        serve_first(running)
        yield running


@pytest.fixture
def admin(server):
    with grpc.insecure_channel(server.address) as channel:
        yield admin_pb2_grpc.AdminStub(channel)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them, and its admin service."""
    with ServerProcess(models.candidates(tmp_path_factory.mktemp("unchanged") / "registry")) as running:
        serve_first(running)
        with grpc.insecure_channel(running.address) as channel:
            yield running, admin_pb2_grpc.AdminStub(channel)


def refused(ask, request, metadata=()):
    """(code, reason, text) of a call that is refused; one that streams is read."""
    def read():
        answer = ask(request, metadata=metadata)
        return [*answer] if hasattr(answer, "__iter__") else answer

    with pytest.raises(grpc.RpcError) as caught:
        read()
    return caught.value.code().name, details_of(caught.value)[0], caught.value.details()


def rolled(admin, status):
    told = pb.GetRolloutRequest(model="linear")
    wait_for(lambda: admin.GetRollout(told).status == status)
    return admin.GetRollout(told)


def test_a_rollout_is_started_looked_at_and_approved_with_a_plan_of_types(server, admin):
    first = pb.Step(share=10, min_samples=20, min_secs=0, approval=pb.Step.MANUAL)
    plan = pb.Plan(steps=[first, pb.Step(share=100, min_samples=0, min_secs=0)], gates=OFF, keep_warm_secs=1000)
    told = admin.StartRollout(pb.StartRolloutRequest(model="linear", version="2", plan=plan))
    assert (told.status, told.incumbent, told.candidate, told.step, [*told.steps]) == (pb.Rollout.RUNNING, "1", "2", "10%", ["10%", "100%"])
    assert told.plan.steps[0].gates.latency_ratio.disabled
    assert told.plan.steps[0].gates.agreement.at_least == 0.9, "what was left out is the default's"
    list(versions_of(server, [BODY] * 400))
    wait_for(lambda: admin.GetRollout(pb.GetRolloutRequest(model="linear")).decision.outcome == pb.Decision.AWAIT_APPROVAL)
    assert admin.ApproveRollout(pb.ApproveRolloutRequest(model="linear")).approved
    message, rest = rolled(admin, pb.Rollout.COMPLETED), server.call(f"{BASE}/rollout")[1]
    assert lost(rest, message) == []
    assert {gate.gate: gate.verdict for gate in message.decision.gates}.keys() == {"error_rate.at_most"}
    assert server.call(f"{BASE}/route")[1]["weights"] == {"2": 100}
    entries = server.call("/admin/audit?action=rollout")[1]["entries"]
    assert [(one["action"], one["actor"].partition(":")[0]) for one in reversed(entries)] == [
        ("rollout.started", "rollout"), ("rollout.start", "ipv4"), ("rollout.approved", "rollout"), ("rollout.approve", "ipv4"),
        ("rollout.promoted", "rollout"), ("rollout.completed", "rollout")]  # fmt: skip


def test_a_rollout_without_a_plan_has_the_default_one_and_is_aborted(server, admin):
    assert server.call(f"{BASE}/rollout", "POST", {"version": "2"})[0] == 200
    default = admin.AbortRollout(pb.AbortRolloutRequest(model="linear")).plan
    assert lost(server.call(f"{BASE}/rollout")[1], admin.GetRollout(pb.GetRolloutRequest(model="linear"))) == []
    told = admin.StartRollout(pb.StartRolloutRequest(model="linear", version="2"))
    assert told.plan == default
    assert told.step == "shadow 100%"
    assert server.call(f"{BASE}/shadow")[1]["shadows"][0]["version"] == "2"
    told = admin.AbortRollout(pb.AbortRolloutRequest(model="linear"))
    assert (told.status, [*told.reasons], told.HasField("ended_s")) == (pb.Rollout.ABORTED, ["aborted by a call"], True)
    assert server.call(f"{BASE}/shadow")[1]["shadows"] == []
    again = admin.StartRollout(pb.StartRolloutRequest(model="linear", version="2", plan=told.plan))
    assert again.plan == told.plan, "a plan that was told can be given"


@pytest.mark.parametrize(("request_", "body"), [
    ({"version": "2", "plan": pb.Plan(steps=[pb.Step(share=5, min_secs=-1), pb.Step(share=100)])},
     {"version": "2", "plan": {"steps": [{"share": 5, "min_secs": -1.0}, {"share": 100}]}}),
    ({"version": "2", "plan": pb.Plan(steps=[pb.Step(share=5)])}, {"version": "2", "plan": {"steps": [{"share": 5}]}}),
    ({"version": "2", "plan": pb.Plan(gates=pb.Gates(agreement=pb.AgreementGate(at_least=2)))}, {"version": "2", "plan": {"gates": {"agreement": {"at_least": 2.0}}}}),
    ({"version": ""}, {"version": ""}), ({"version": "9"}, {"version": "9"}), ({"version": "1"}, {"version": "1"}),
])  # fmt: skip
def test_a_rollout_that_is_refused_is_refused_with_the_text_of_rest(unchanged, request_, body):
    server, admin = unchanged
    status, answer = server.call(f"{BASE}/rollout", "POST", body)
    code, reason, text = refused(admin.StartRollout, pb.StartRolloutRequest(model="linear", **request_))
    assert (status, code, reason) in ((400, "INVALID_ARGUMENT", "INVALID_REQUEST"), (404, "NOT_FOUND", "NOT_FOUND"))
    assert text == answer["error"]
    assert refused(admin.GetRollout, pb.GetRolloutRequest(model="linear"))[2] == "there is no rollout of model 'linear'"
    assert refused(admin.ApproveRollout, pb.ApproveRolloutRequest(model="linear"))[2] == "no rollout of model linear runs"


def shadows(admin):
    return admin.GetShadow(pb.GetShadowRequest(model="linear")).shadows


def settled(admin, least):
    """Once so many requests have been mirrored and nothing waits any more."""
    def look():
        (one,) = shadows(admin)
        return one.figures.mirrored >= least and one.figures.pending == 0

    wait_for(look)


def test_a_shadow_is_set_tells_what_it_finds_and_stops(server, admin):
    told = admin.SetShadow(pb.SetShadowRequest(model="linear", version="3", rtol=0.01, keep=5, agree_by=pb.Shadow.TOLERANCE))
    (one,) = told.shadows
    assert (one.version, one.share, one.rtol, one.atol, one.keep, one.agree_by, one.redact) == ("3", 1, 0.01, 1e-5, 5, pb.Shadow.TOLERANCE, False)
    list(versions_of(server, [BODY] * 100))
    settled(admin, 100)
    message, rest = admin.GetShadow(pb.GetShadowRequest(model="linear")), server.call(f"{BASE}/shadow")[1]
    assert lost(rest, message) == []
    assert message.shadows[0].state == pb.Shadow.MIRRORS
    assert message.shadows[0].agreement.interval.high < 0.5
    assert message.shadows[0].outputs["y"].max_rel == pytest.approx(1 / 3, rel=1e-5)
    worst = [*admin.GetWorstShadow(pb.GetWorstShadowRequest(model="linear"))]
    assert [lost({"version": "3", **one}, other) for one, other in zip(server.call(f"{BASE}/shadow/worst")[1]["worst"]["3"], worst, strict=True)] == [[]] * 5
    said = np.frombuffer(worst[0].candidate[0].raw, np.float32) / np.frombuffer(worst[0].answered[0].raw, np.float32)
    np.testing.assert_allclose(said, 1.5, rtol=1e-5)
    admin.SetShadow(pb.SetShadowRequest(model="linear", version="2"))
    assert [*admin.GetWorstShadow(pb.GetWorstShadowRequest(model="linear", version="2"))] == []
    assert [one.version for one in admin.StopShadow(pb.StopShadowRequest(model="linear", version="3")).shadows] == ["2"]
    assert [*admin.StopShadow(pb.StopShadowRequest(model="linear")).shadows] == []
    entries = server.call("/admin/audit?action=shadow")[1]["entries"]
    assert [one["action"] for one in reversed(entries)] == ["shadow.set", "shadow.set", "shadow.stopped", "shadow.stopped"]


def test_disagreements_come_one_by_one_so_that_all_of_them_may_be_larger_than_a_message(server, admin):
    admin.SetShadow(pb.SetShadowRequest(model="linear", version="3"))
    rows = 12_000
    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[np.ones((rows, 8), np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 8])
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        wait_for(lambda: stub.ModelInfer(request) and shadows(admin)[0].figures.compared >= 8)
    worst = [*admin.GetWorstShadow(pb.GetWorstShadowRequest(model="linear"))]
    assert len(worst) == 8
    assert sum(one.ByteSize() for one in worst) > 4 << 20, "what grpcio takes at most of a message"
    assert worst[0].inputs[0].raw == request.raw_input_contents[0]


@pytest.mark.parametrize(("request_", "body"), [
    ({"version": "9"}, {"version": "9"}), ({"version": "1"}, {"version": "1"}), ({"version": "2", "share": 0}, {"version": "2", "share": 0.0}),
    ({"version": "2", "keep": 65}, {"version": "2", "keep": 65}), ({}, {}),
])  # fmt: skip
def test_a_shadow_that_is_refused_is_refused_with_the_text_of_rest(unchanged, request_, body):
    server, admin = unchanged
    status, answer = server.call(f"{BASE}/shadow", "PUT", body)
    told = refused(admin.SetShadow, pb.SetShadowRequest(model="linear", **request_))
    assert (status, *told) == (400, "INVALID_ARGUMENT", "INVALID_REQUEST", answer["error"])
    assert refused(admin.StopShadow, pb.StopShadowRequest(model="linear"))[2] == server.call(f"{BASE}/shadow", "DELETE")[1]["error"]


def test_the_trail_is_listed_verified_and_exported_as_over_rest(server, admin):
    for size in (8, 16):
        assert server.call(f"{BASE}/tuning", "PATCH", {"batching": {"max_batch_size": size}})[0] == 200
    admin.SetShadow(pb.SetShadowRequest(model="linear", version="2"))
    wait_for(lambda: admin.ListAudit(pb.ListAuditRequest()).state.HasField("verified"))  # after the files have been hashed, at the start
    rest = server.call("/admin/audit?limit=1000")[1]
    assert lost(rest, admin.ListAudit(pb.ListAuditRequest(limit=1000))) == []
    for filters in ({"model": "linear", "action": "tuning"}, {"since": "1h", "limit": 3}, {"before": 5, "limit": 2}, {"since": "2999-01-01"}):
        query = "&".join(f"{key}={value}" for key, value in filters.items())
        assert lost(server.call(f"/admin/audit?{query}")[1], admin.ListAudit(pb.ListAuditRequest(**filters))) == []
    newest = admin.ListAudit(pb.ListAuditRequest(action="tuning.set", limit=1)).entries[0]
    assert newest.after.struct_value["batching.max_batch_size"] == 16
    head = admin.GetAuditHead(pb.GetAuditHeadRequest())
    assert (head.seq, head.hash) == (rest["head"]["seq"], rest["head"]["hash"])
    assert not admin.VerifyAudit(pb.VerifyAuditRequest(head=head)).HasField("broken")
    other = admin.VerifyAudit(pb.VerifyAuditRequest(head=pb.AuditHead(seq=2, hash="0" * 64)))
    assert (other.broken, other.reason, other.head.seq) == (2, "its hash is not the one that was noted", 1)
    exported = b"".join(part.lines for part in admin.ExportAudit(pb.ExportAuditRequest()))
    assert exported == server.get("/admin/audit/export")[1]
    assert verified_export(exported.splitlines(keepends=True), Head(head.seq, head.hash)).broken is None


@pytest.mark.parametrize(("method", "request_", "query"), [
    ("ListAudit", pb.ListAuditRequest(limit=0), "?limit=0"), ("ListAudit", pb.ListAuditRequest(limit=1001), "?limit=1001"),
    ("ListAudit", pb.ListAuditRequest(since="yesterday"), "?since=yesterday"), ("ListAudit", pb.ListAuditRequest(before=-1), None),
    ("VerifyAudit", pb.VerifyAuditRequest(head=pb.AuditHead(seq=1, hash="x")), "/verify?head=1:x"),
])  # fmt: skip
def test_a_wrong_question_to_the_trail_is_refused_with_the_text_of_rest(unchanged, method, request_, query):
    server, admin = unchanged
    code, reason, text = refused(getattr(admin, method), request_)
    assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert text == (server.call(f"/admin/audit{query}")[1]["error"] if query else "before: -1 given, a whole number wanted")


def test_changes_and_the_worst_want_the_key_and_the_rest_does_not(registry, tmp_path):
    (tmp_path / "key").write_text(KEY)
    with ServerProcess(registry, "--admin-key-file", str(tmp_path / "key")) as server, grpc.insecure_channel(server.address) as channel:
        admin = admin_pb2_grpc.AdminStub(channel)
        found = {name: refused(getattr(admin, name), request)[:2] for name, request in CALLS.items()}
        assert found == {name: ("UNAUTHENTICATED",) * 2 if name in GUARDED else ("NOT_FOUND",) * 2 for name in CALLS}
        key = [("authorization", f"Bearer {KEY}")]
        assert {refused(getattr(admin, name), request, key)[:2] for name, request in CALLS.items()} == {("NOT_FOUND", "NOT_FOUND")}
        assert admin.GetAuditHead(pb.GetAuditHeadRequest()).seq > 0
        listed = admin.ListAudit(pb.ListAuditRequest(model="none")).entries
        assert [(one.action, one.outcome, one.key) for one in reversed(listed)] == [
            (action, "refused", key) for key in (False, True)
            for action in ("rollout.start", "rollout.approve", "rollout.abort", "shadow.set", "shadow.stopped")]  # fmt: skip
        assert KEY.encode() not in b"".join(part.lines for part in admin.ExportAudit(pb.ExportAuditRequest()))


def test_without_a_key_callers_behind_a_proxy_may_look_alone(admin):
    found = {name: refused(getattr(admin, name), request, [("x-forwarded-for", "1.2.3.4")])[:2] for name, request in CALLS.items()}
    assert found == {name: ("PERMISSION_DENIED", "FORBIDDEN") if name in GUARDED else ("NOT_FOUND", "NOT_FOUND") for name in CALLS}


def test_a_model_that_is_not_there_is_told_as_over_rest(server, admin):
    texts = {refused(getattr(admin, name), request)[2] for name, request in CALLS.items()}
    assert texts == {server.call("/admin/models/none/shadow")[1]["error"]}


def test_a_client_without_stubs_learns_all_calls_by_reflection(server):
    with grpc.insecure_channel(server.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName("batchmill.admin.v1.Admin")
        assert [method.name for method in service.methods] == [method.name for method in pb.DESCRIPTOR.services_by_name["Admin"].methods]
        asked, answered = (GetMessageClass(pool.FindMessageTypeByName(f"batchmill.admin.v1.ListAudit{kind}")) for kind in ("Request", "Response"))
        ask = channel.unary_unary("/batchmill.admin.v1.Admin/ListAudit", asked.SerializeToString, answered.FromString)
        wait_for(lambda: any(one.after.struct_value.fields for one in ask(asked()).entries))


@pytest.mark.parametrize(("page", "says"), [("rollouts.md", "RUNNING 5%"), ("shadow.md", ""), ("audit.md", "")])
def test_the_examples_of_the_pages_do_what_they_say(server, tmp_path, page, says):
    (code,) = (block.partition("```")[0] for block in (DOCS / page).read_text().split("```python\n")[1:] if "admin_pb2" in block)
    code = code.replace("localhost:8001", server.address).replace("digits", "linear")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (done.returncode, says in done.stdout) == (0, True), done.stdout + done.stderr
