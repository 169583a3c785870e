"""Start and end (faults G) where test_lifecycle.py, test_behaviour.py, test_safety.py and test_cli.py do not look."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import h2.events
import pytest

from reference import proto

from . import models, wire
from .faults import INFER, OWN, infer, infer_message, rest_body
from .server import ServerProcess, free_port
from .test_hot import index, wait_for

LAME_DUCK_SECS = 1.0
SERVICE = "/inference.GRPCInferenceService/"
BODY = rest_body("x", "FP32", [1, 8], [1.0] * 8)
MESSAGE = infer_message("linear", "x", "FP32", [1, 8], bytes(32)).SerializeToString()
SLOW = infer_message("slow", "x", "FP32", [1, 256, 256], bytes(1 << 18)).SerializeToString()
NOT_SERVING = b"\x08\x02"
LAST_STREAM = 2**31 - 1     # of a GOAWAY that only gives notice


@pytest.fixture
def registry(tmp_path):
    models.linear(tmp_path / "registry")
    return tmp_path / "registry"


class Load:
    """Clients that send for as long as they are answered, and what became of each request."""

    def __init__(self, server):
        self.server, self.outcomes, self.stopped = server, [], threading.Event()
        work = [self.rest, self.rest, self.grpc, self.grpc, self.stream]
        self.threads = [threading.Thread(target=self.until_stopped, args=(one,)) for one in work]

    def until_stopped(self, work):
        while not self.stopped.is_set():
            work()

    def rest(self):
        """On one connection for as long as it is kept. Closed between two requests is no loss; within an answer is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            while not self.stopped.is_set():
                connection.request("POST", "/v2/models/linear/infer", BODY)
                answer = connection.getresponse()
                answer.read()
                self.outcomes.append(answer.status)
                if answer.will_close:
                    return
        except (http.client.RemoteDisconnected, ConnectionError):
            self.outcomes.append("refused")
            time.sleep(0.02)
        except http.client.IncompleteRead:
            self.outcomes.append("cut")
        finally:
            connection.close()

    def grpc(self):
        with grpc.insecure_channel(self.server.address, OWN) as channel:
            call = channel.unary_unary(INFER)
            while not self.stopped.is_set():
                try:
                    call(MESSAGE, timeout=20)
                    self.outcomes.append(200)
                except grpc.RpcError as error:
                    self.outcomes.append("refused" if error.code() == grpc.StatusCode.UNAVAILABLE else error.code())
                    time.sleep(0.02)

    def stream(self):
        """Asks on an open stream, one after the other, until it is ended."""
        with grpc.insecure_channel(self.server.address, OWN) as channel:
            asked = threading.Semaphore(1)

            def messages():
                while asked.acquire(timeout=5) and not self.stopped.is_set():
                    yield MESSAGE

            try:
                for one in channel.stream_stream(f"{SERVICE}ModelStreamInfer")(messages(), timeout=20):
                    answer = proto.message("ModelStreamInferResponse").FromString(one)
                    self.outcomes.append(answer.error_message or 200)
                    asked.release()
            except grpc.RpcError as error:
                self.outcomes.append("refused" if error.code() == grpc.StatusCode.UNAVAILABLE else error.code())
                time.sleep(0.02)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def in_flight(server, model):
    found = re.search(rf'^batchmill_version_in_flight_requests{{model="{model}",version="1"}} (\d+)', server.get("/metrics")[1].decode(), re.M)
    return int(found[1]) if found else 0


def test_under_load_all_that_was_accepted_is_answered_the_rest_refused_and_the_exit_is_0_in_time(registry):
    """Long requests and an open stream among them, and the clients go on sending all the while. Its port is free at once."""
    models.slow(registry, 1200)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")
    with ServerProcess(registry, "--lame-duck-secs", "0.5", "--exit-timeout-secs", "20") as server, Load(server) as load, \
            grpc.insecure_channel(server.address, OWN) as channel:  # fmt: skip
        wait_for(lambda: len(load.outcomes) > 100)
        long = [channel.unary_unary(INFER).future(SLOW, timeout=30) for _ in range(4)]
        wait_for(lambda: in_flight(server, "slow") + sum(call.done() for call in long) >= 4, 20)
        started = time.monotonic()
        assert server.stop(signal.SIGTERM, 25) == 0
        assert time.monotonic() - started < 20
        assert all(len(call.result()) > 1 << 18 for call in long)
        before = len(load.outcomes)
        wait_for(lambda: len(load.outcomes) > before + 20)
        with ServerProcess(registry, "--model-control", "explicit", "--load-model", "linear", port=server.port):
            load.outcomes.append("next")
            wait_for(lambda: load.outcomes[load.outcomes.index("next") :].count(200) > 50)
    assert {*load.outcomes} <= {200, 503, "refused", "next", "the server is still loading its models"}


def health_of(channel, service=b""):
    return channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a" + bytes([len(service)]) + service if service else b"", timeout=5)


def test_in_the_lame_duck_time_grpc_is_not_ready_but_live_and_served(registry):
    with ServerProcess(registry, "--lame-duck-secs", str(LAME_DUCK_SECS)) as server, grpc.insecure_channel(server.address, OWN) as channel:
        answers = []
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
        watching = threading.Thread(target=lambda: answers.extend(told for told in until_ended(watch)))
        watching.start()
        wait_for(lambda: answers)
        assert channel.unary_unary(f"{SERVICE}ServerReady")(b"", timeout=5) == b"\x08\x01"
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: channel.unary_unary(f"{SERVICE}ServerReady")(b"", timeout=5) == b"", 0.5)
        assert health_of(channel) == health_of(channel, b"linear") == NOT_SERVING
        assert channel.unary_unary(f"{SERVICE}ServerLive")(b"", timeout=5) == b"\x08\x01"
        assert server.get("/v2/health/ready")[0] == 503
        assert server.get("/v2/health/live")[0] == 200
        assert channel.unary_unary(INFER)(MESSAGE, timeout=5)
        assert infer(server, "linear", BODY)[0] == 200      # on a new connection
        assert server.process.wait(20) == 0
        watching.join()
    assert answers == [b"\x08\x01", NOT_SERVING]


def until_ended(call):
    with contextlib.suppress(grpc.RpcError):
        yield from call


def goaways(connection, seconds):
    """The last streams that GOAWAYs name until then."""
    found, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.socket.settimeout(left)
        try:
            data = connection.socket.recv(1 << 16)
        except TimeoutError:
            break
        if not data:
            break
        found += [event.last_stream_id for event in connection.client.receive_data(data) if isinstance(event, h2.events.ConnectionTerminated)]
    return found


def test_http1_is_told_to_close_and_http2_hears_of_the_end_only_when_the_lame_duck_time_is_over(registry):
    with ServerProcess(registry, "--lame-duck-secs", str(LAME_DUCK_SECS)) as server, wire.Http2(server.port) as quiet, wire.connect(server.port) as kept:
        quiet.flush()
        assert goaways(quiet, 0.2) == []
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.get("/v2/health/ready")[0] == 503)
        kept.sendall(wire.post("/v2/models/linear/infer", BODY))
        head = kept.makefile("rb").read()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in head
        assert goaways(quiet, LAME_DUCK_SECS / 2) == []
        told = goaways(quiet, 5)
        assert told[0] == LAST_STREAM
        assert told[-1] < LAST_STREAM
        assert server.process.wait(20) == 0


def test_after_a_kill_nothing_stale_stops_the_next_start(registry, tmp_path):
    path = tmp_path / "socket"
    flags = ("--uds", str(path), "--access-log", "1")
    first = ServerProcess(registry, *flags)
    first.wait_ready()
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert path.exists()
    with ServerProcess(registry, *flags, port=first.port) as server, socket.socket(socket.AF_UNIX) as client:
        assert infer(server, "linear", BODY)[0] == 200
        client.connect(str(path))
        client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_unix_socket_on_which_another_server_listens_is_taken_from_nobody(registry, tmp_path):
    path = tmp_path / "socket"
    with ServerProcess(registry, "--uds", str(path)):
        command = [sys.executable, "-m", "batchmill", "serve", registry, "--port", "0", "--grpc-port", "0", "--uds", path, "--state-dir", tmp_path / "other"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1), second.stderr
        assert f"{path}: Address already in use" in second.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("flags", "ready"), [((), 200), (("--strict-readiness",), 503)], ids=["as it is", "strict"])
def test_with_one_of_three_models_broken_the_others_are_served_and_the_index_says_why(registry, flags, ready):
    models.lookup(registry)
    models.linear(registry, "broken").write_bytes(b"random")
    server = ServerProcess(registry, *flags)
    try:
        server.wait_ready(path="/v2/models/linear/ready")
        wait_for(lambda: index(server).get(("broken", "1"), {}).get("state") == "UNAVAILABLE")
        assert "not a readable ONNX file" in index(server)["broken", "1"]["reason"]
        assert {name for (name, _), one in index(server).items() if one["state"] == "READY"} == {"linear", "lookup"}
        wait_for(lambda: server.get("/v2/health/ready")[0] == ready)
        assert infer(server, "linear", BODY)[0] == 200
        assert infer(server, "broken", BODY)[0] in (404, 503)
    finally:
        assert server.stop() == 0


def test_sigterm_at_any_time_of_the_start_ends_it_cleanly(registry):
    """Before the server has its own handlers it ends as any process does."""
    for moment in (0.02, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4):
        server = ServerProcess(registry)
        time.sleep(moment)
        assert server.stop(signal.SIGTERM, 10) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log_path.read_text(), (moment, server.log_path.read_text())


def test_a_hang_up_has_the_registry_looked_at_and_ends_nothing(registry):
    with ServerProcess(registry, "--poll-secs", "3600") as server:
        server.process.send_signal(signal.SIGHUP)       # the event loop may not be there yet
        wait_for(lambda: server.get("/v2")[0] == 200)
        models.lookup(registry)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.get("/v2/models/lookup/ready")[0] == 200)
        assert infer(server, "linear", BODY)[0] == 200


@pytest.mark.parametrize("restarts", [2, pytest.param(10, marks=pytest.mark.long)])
def test_restarts_in_a_row_lose_nothing_of_a_client_that_tries_again(registry, restarts):
    port, lost, done, stopped = free_port(), [], [], threading.Event()

    def ask_all():
        while not stopped.is_set():
            end = time.monotonic() + 10
            while time.monotonic() < end:
                outcome = attempt(port)
                if outcome != "again":
                    break
                time.sleep(0.02)
            (done if outcome == 200 else lost).append(outcome)

    asking = [threading.Thread(target=ask_all) for _ in range(4)]
    for restart in range(restarts + 1):
        with ServerProcess(registry, port=port):
            if not restart:
                for thread in asking:
                    thread.start()
            before = len(done)
            wait_for(lambda: len(done) > before + 20)  # noqa: B023
            if restart == restarts:
                stopped.set()
                for thread in asking:
                    thread.join()
    assert lost == []


def attempt(port):
    """The status, or "again" when the request was refused: no connection, closed before an answer began, or 503."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v2/models/linear/infer", BODY)
        answer = connection.getresponse()
        status = answer.status
        json.loads(answer.read())
    except (http.client.RemoteDisconnected, ConnectionError):
        return "again"
    finally:
        connection.close()
    return "again" if status == 503 else status
