# The gateway: docker build -f image/gateway.Dockerfile .   (from the repository root)
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="vllm-endpoint gateway" \
      org.opencontainers.image.description="The gateway of an OpenAI-compatible vLLM endpoint" \
      org.opencontainers.image.licenses="MIT"

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /app

COPY requirements/gateway.txt requirements/constraints.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements/gateway.txt

# Compiled at build time, so that nothing is written at run time and the root file system can be read-only.
# The engine's entrypoint is included: it downloads weights without a GPU, and is delivered to vLLM's own image from here.
COPY image/gateway/ image/gateway/
COPY image/engine/ image/engine/
RUN python -m compileall -q image/gateway image/engine

RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway
USER 10001:10001

EXPOSE 8080 9090
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-m", "image.gateway.healthcheck"]

ENTRYPOINT ["python", "-m", "image.gateway"]
