# The front door: docker build -f image/gateway.Dockerfile .   (from the root of the repository)
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="vllm-endpoint gateway" \
      org.opencontainers.image.description="The front door of an OpenAI-compatible vLLM endpoint" \
      org.opencontainers.image.licenses="MIT"

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /app

COPY requirements/gateway.txt requirements/constraints.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements/gateway.txt

# Compiled here, so that nothing is written at run time and the root file system may be read-only.
# The engine's entrypoint lies here, too: it fetches weights without a GPU, and goes to vLLM's own image from here.
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
