"""Imports go down: a module may use those above it in these lists, and none below."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = (
    "clock threads status histogram tensor notes message compression closeness feedback_token comparison ort_api ort_library ort_run_options ort_session ort pb_wire pb_request pb_response json_scanner json_tensor json_request json_codec "
    "padding predictor batcher admission sub_queues queue breaker router mirror signature exposition batch rehearsal parts turns culprits runner inline_runs executor shadow_figures shadow_run shadow route_table front bridge grpc rest http1_parser http1_reply http1_exchange http1 nghttp2 http2_stream http2_headers http2_reply http2_exchange http2 loopback pacer access_log entrance fallback intake io_socket io_thread reactor policy_probe route_probe probe"
).split()
SERVER = "core errors logs periodic complaints document config flags state store chain ledger audit proto backends observe rollout.plan rollout.plan_schema registry rollout recorder recording endpoints remote client listing top retune assessment traffic stepwise shadowing trail reload drain app check commands cli __main__".split()
IMPORT = re.compile(r"^\s*(?:from\s+(batchmill[\w.]*)\s+c?import\s+\(?\s*([\w ,*]+)|c?import\s+(batchmill[\w.]*))", re.M)
SOURCES = sorted(p for root in ("ext", "server") for s in ("py", "pyi", "pyx", "pxd") for p in (ROOT / root).rglob(f"*.{s}") if "proto" not in p.parts)


def modules_used(path):
    for package, names, plain in IMPORT.findall(path.read_text()):
        package = package or plain
        if package in ("batchmill", "batchmill.core"):
            yield from (f"{package}.{name.split()[0]}" for name in names.split(",") if name.split())
        yield package


def rank(module):
    """(layer, place in it) of a dotted module; None: the package itself."""
    parts = module.split(".")[1:]
    if not parts or (parts[0] not in SERVER):
        return None
    if parts[0] == "core":
        return (0, CORE.index(parts[1])) if len(parts) > 1 else None
    inside = ".".join(parts[:2])
    return SERVER.index(inside if inside in SERVER else parts[0]), 0


def name_of(path):
    relative = path.relative_to(ROOT / ("ext" if "ext" in path.relative_to(ROOT).parts else "server")).with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down(path):
    own = rank(name_of(path))
    if own is None:
        return
    for module in modules_used(path):
        used = rank(module)
        assert used is None or used <= own, f"{name_of(path)} imports {module}, which is above it"


def test_every_core_module_has_its_place():
    assert sorted({p.stem for p in SOURCES if p.parent.name == "core"} - {"__init__"}) == sorted(CORE)


def test_a_plain_serve_does_not_load_what_it_does_not_need():
    """What the first answer does not need is imported after it, or never."""
    import subprocess
    import sys

    code = "import sys, batchmill.cli, batchmill.app; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"numpy", "onnx", "onnxruntime", "scipy", "pyarrow", "grpc", "starlette", "pydantic", "yaml", "prometheus_client", "opentelemetry", "sqlite3"}
