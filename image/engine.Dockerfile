# The engine: upstream vLLM with our entrypoint in front. Build context: the repository's root.
#   docker build -f image/engine.Dockerfile -t vllm-endpoint-engine .
# VLLM_IMAGE takes a digest, too: --build-arg VLLM_IMAGE=docker.io/vllm/vllm-openai@sha256:...
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.33.0
FROM ${VLLM_IMAGE}

LABEL org.opencontainers.image.title="vllm-endpoint-engine" \
      org.opencontainers.image.description="vLLM behind an entrypoint that checks the machine first" \
      org.opencontainers.image.licenses="MIT"

ENV HF_HOME=/weights \
    VLLM_CACHE_ROOT=/cache \
    HOME=/cache/home \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    PYTHONPATH=/app

COPY image/engine /app/image/engine
RUN mkdir -p /weights /cache/home && chown -R 1000:0 /weights /cache && chmod -R g=u /weights /cache

WORKDIR /app
USER 1000:0
EXPOSE 8000
# A model takes minutes to load; 127.0.0.1 because localhost may be ::1, python3 because the image has no curl.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or os.environ.get('VLLM_PORT') or 8000}/health\", timeout=4)"]
ENTRYPOINT ["python3", "-m", "image.engine"]
