# docker build -t batchmill . && docker run --rm -p 8000:8000 -p 8001:8001 -v "$PWD/examples/registry:/models:ro" batchmill
# BASE: a Debian with Python 3.11 or newer as `python`, its headers and venv.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential pkg-config libnghttp2-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY ext ext
COPY server server
RUN python -m venv /opt/batchmill \
 && /opt/batchmill/bin/pip wheel --no-cache-dir --no-deps -w /wheels . \
 && /opt/batchmill/bin/pip install --no-cache-dir /wheels/*.whl

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends libnghttp2-14 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 batchmill \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/batchmill --create-home batchmill
COPY --from=build /opt/batchmill /opt/batchmill
ENV PATH=/opt/batchmill/bin:$PATH PYTHONUNBUFFERED=1 BATCHMILL_STATE_DIR=/var/lib/batchmill
# By number, so that an orchestrator can tell that it is not root.
USER 10001:10001
EXPOSE 8000 8001
VOLUME /var/lib/batchmill
# No curl in the image: Python asks.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["batchmill"]
CMD ["serve", "/models", "--host", "0.0.0.0"]
