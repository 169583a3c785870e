#!/usr/bin/env python3
"""Starts `batchmill serve` on the example registry, runs demo.py against it, and stops it again.

Exit code: demo.py's, or 1 when the server does not start or does not stop well. Ports are free ones; the state goes to a
temporary folder. Needs: the standard library, and batchmill installed for this Python.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
START_SECS = 60  # a cold disk reads ONNX Runtime's library slowly
STOP_SECS = 20

NEXT = """
What to try next (in two terminals, from this folder):
  make serve                                    # the same server, on ports 8000 (HTTP) and 8001 (gRPC); both speak both
  curl -s localhost:8000/v2/models/digits
  curl -s localhost:8000/v2/models/digits/infer -d @examples/images/request.json
  curl -s localhost:8000/v2/models/digits/versions/1/infer -d @examples/images/request.json
  make serve REGISTRY=path/to/your/models       # <model>/<version>/model.onnx, or one .onnx file
README.md goes on from here."""


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Returns when the server says it is ready; RuntimeError when it ended or took too long."""
    end = time.monotonic() + START_SECS
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError(f"the server was not ready after {START_SECS} s")


def stop(server: subprocess.Popen[bytes]) -> int:
    """The server's exit code after SIGTERM; it is killed when it does not end in time."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        return server.wait(STOP_SECS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return 1


def demo(folder: Path) -> int:
    """Runs the demonstration with logs and state in folder; the exit code."""
    port, grpc_port = free_ports(2)
    command = [sys.executable, "-m", "batchmill", "serve", str(HERE / "registry"), "--port", str(port), "--grpc-port", str(grpc_port),
               "--state-dir", str(folder / "state"), "--lame-duck-secs", "0"]
    log = folder / "server.log"
    print(f"$ batchmill serve examples/registry --port {port} --grpc-port {grpc_port}", flush=True)
    started = time.monotonic()
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_ready(server, f"http://127.0.0.1:{port}")
        print(f"ready after {time.monotonic() - started:.2f} s", flush=True)
        code = subprocess.call([sys.executable, str(HERE / "demo.py"), f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"])
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        code = 1
    finally:
        ended = stop(server)
    if code or ended:
        print(f"demo: failed; the server ended with {ended} and said:\n{log.read_text(errors='replace')}", file=sys.stderr)
        return code or 1
    print(f"server stopped, exit code {ended}")
    print(NEXT)
    return 0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="batchmill-demo-") as folder:
        return demo(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
