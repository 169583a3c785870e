"""PEP 517 build backend: generates the protobuf stubs, finds libnghttp2 and zlib, and leaves the rest to setuptools.

`ext-modules` in pyproject.toml cannot ask pkg-config, so the extension modules are listed here.
Run as a script it builds in place: `python protos/build_backend.py [MODULE ...]` (no names: all of them).
BATCHMILL_SANITIZE=address|thread|undefined (comma-separated) makes a sanitizer build.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "ext" / "batchmill" / "core"
STUBS = ROOT / "server" / "batchmill" / "proto"
HTTP2_MODULES = {"http2", "http2_exchange", "http2_reply", "http2_stream", "io_socket", "io_thread", "loopback", "route_probe"}
PACKAGES = dict.fromkeys(HTTP2_MODULES, "libnghttp2") | {"compression": "zlib"}  # what pkg-config is asked for, by module
DIRECTIVES = {
    "language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True, "initializedcheck": False,
    "freethreading_compatible": False, "warn.unused": True,
}


def pkg_config(flag: str, package: str) -> list[str]:
    """The compiler flags pkg-config knows for a package; a clear error when the package is not installed."""
    try:
        done = subprocess.run(["pkg-config", flag, package], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"batchmill needs {package} and pkg-config: apt-get install pkg-config libnghttp2-dev zlib1g-dev") from error
    return shlex.split(done.stdout)


def extensions(names: set[str] | None = None) -> list[Any]:
    """The extension modules of batchmill.core, or those of them that are named."""
    from Cython.Build import cythonize
    from setuptools import Extension

    headers = sorted(str(p.relative_to(ROOT)) for p in CORE.glob("*.hpp"))  # left out of `depends`: a silent ABI break
    sanitizers = [f"-fsanitize={s}" for s in os.environ.get("BATCHMILL_SANITIZE", "").split(",") if s]
    if sanitizers:
        # Variables that nobody sets hold 0xFE or 0xAA, never by luck a zero.
        sanitizers += ["-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined", "-ftrivial-auto-var-init=pattern"]
    modules = []
    if unknown := set(names or ()) - {source.stem for source in CORE.glob("*.pyx")}:
        raise SystemExit(f"no such module in {CORE.relative_to(ROOT)}: {', '.join(sorted(unknown))}")
    for source in sorted(CORE.glob("*.pyx")):
        if names and source.stem not in names:
            continue
        package = PACKAGES.get(source.stem)
        modules.append(Extension(
            f"batchmill.core.{source.stem}", [str(source.relative_to(ROOT))], language="c++", depends=headers,
            include_dirs=["ext/batchmill/core"],
            # -g0: most interpreters hand their -g down, and the modules were six times as large (23 MB).
            extra_compile_args=["-std=c++17", "-fvisibility=hidden", "-Wno-unused-function", "-g0", *sanitizers,
                                *(pkg_config("--cflags", package) if package else [])],
            extra_link_args=[*sanitizers, *(pkg_config("--libs", package) if package else [])],
            libraries=["dl"],
        ))
    return list(cythonize(modules, include_path=["ext"], compiler_directives=DIRECTIVES, show_all_warnings=False))


def packages() -> list[str]:
    """All import packages: two source roots share one name, which setuptools' own search maps to the last root alone."""
    from setuptools import find_packages

    return [*find_packages(str(ROOT / "server")), "batchmill.core"]


def typed_build() -> Any:
    """setuptools' build_py, which also marks the installed package as typed (PEP 561)."""
    from setuptools.command.build_py import build_py

    class TypedBuild(build_py):  # type: ignore[misc]
        def run(self) -> None:
            super().run()
            if not self.editable_mode:
                Path(self.build_lib, "batchmill", "py.typed").touch()

    return TypedBuild


def generate_stubs() -> None:
    """protos/*.proto -> server/batchmill/proto/*_pb2.py, *_pb2.pyi, *_pb2_grpc.py (only when a proto is newer)."""
    sources = sorted((ROOT / "protos").glob("*.proto"))
    STUBS.mkdir(exist_ok=True)
    made = [STUBS / f"{s.stem}_pb2.py" for s in sources]
    if all(m.exists() and m.stat().st_mtime >= s.stat().st_mtime for s, m in zip(sources, made, strict=True)):
        return
    import grpc_tools
    from grpc_tools import protoc

    own = Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf
    arguments = ["protoc", f"-I{ROOT / 'protos'}", f"-I{own}", f"--python_out={STUBS}", f"--pyi_out={STUBS}", f"--grpc_python_out={STUBS}"]
    if protoc.main([*arguments, *map(str, sources)]):
        raise SystemExit("protoc failed")
    for path in STUBS.glob("*_pb2*.py*"):  # absolute imports between stubs -> imports inside the package
        text = path.read_text()
        for source in sources:
            text = text.replace(f"\nimport {source.stem}_pb2 as", f"\nfrom batchmill.proto import {source.stem}_pb2 as")
        path.write_text(text)
    (STUBS / "__init__.py").write_text('"""Generated from protos/; do not edit."""\n')


class Backend(build_meta._BuildMetaBackend):  # type: ignore[misc, name-defined]
    """setuptools' backend with the extension modules added to the one call of setup()."""

    def run_setup(self, setup_script: str = "setup.py") -> None:
        import setuptools

        os.chdir(ROOT)
        generate_stubs()
        needs_modules = not {"egg_info", "dist_info", "sdist"} & set(sys.argv)
        modules = extensions() if needs_modules else []
        setuptools.setup(packages=packages(), ext_modules=modules, cmdclass={"build_py": typed_build()},
                         options={"build_ext": {"parallel": os.cpu_count()}})


_backend = Backend()
build_wheel, build_sdist, build_editable = _backend.build_wheel, _backend.build_sdist, _backend.build_editable
get_requires_for_build_wheel = _backend.get_requires_for_build_wheel
get_requires_for_build_sdist = _backend.get_requires_for_build_sdist
get_requires_for_build_editable = _backend.get_requires_for_build_editable
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _backend.prepare_metadata_for_build_editable


def build_in_place(names: list[str]) -> None:
    """Compiles the named modules (none: all) beside their sources."""
    import setuptools

    os.chdir(ROOT)
    generate_stubs()
    sys.argv[1:] = ["build_ext", "--inplace", f"--parallel={os.cpu_count()}"]
    setuptools.setup(packages=packages(), ext_modules=extensions(set(names) or None))


if __name__ == "__main__":
    build_in_place(sys.argv[1:])
