# vLLM and the gateway in one container: upstream vLLM with our entrypoint. Build context: the repository root.
#   docker build -f image/engine.Dockerfile -t vllm-endpoint-engine .
#   docker run --gpus all -p 8000:8000 -v weights:/weights -v compile-cache:/cache \
#     -e MODEL_NAME=Qwen/Qwen3-0.6B -e VLLM_API_KEY=... vllm-endpoint-engine
# VLLM_IMAGE also accepts a digest: --build-arg VLLM_IMAGE=docker.io/vllm/vllm-openai@sha256:...
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.33.0
FROM ${VLLM_IMAGE}
ARG VLLM_IMAGE

LABEL org.opencontainers.image.title="vllm-endpoint-engine" \
      org.opencontainers.image.description="vLLM behind an entrypoint that checks the machine first, and a gateway" \
      org.opencontainers.image.base.name="${VLLM_IMAGE}" \
      org.opencontainers.image.licenses="MIT"

ENV HF_HOME=/weights \
    ENGINE_CACHE=/cache \
    ENGINE_IMAGE=${VLLM_IMAGE} \
    ENGINE_GATEWAY_PACKAGES=/app/gateway-packages \
    HOME=/cache/home \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app

WORKDIR /app

# Installed separately, so that vLLM's own pinned packages do not change.
COPY requirements/gateway.txt requirements/constraints.txt requirements/
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --target "${ENGINE_GATEWAY_PACKAGES}" -r requirements/gateway.txt

# Without bytecode, importing vLLM takes 18 s longer at every start (42.8 s instead of 24.6 s to the first token of a 4B model
# on an H200), and an unprivileged user could not write it later. Some packages ship files that Python cannot compile, so
# errors are ignored here and the result is checked afterwards.
COPY image/gateway image/gateway
COPY image/engine image/engine
RUN python3 -m compileall -q -j 0 -x '/tests?/' \
        "$(python3 -c 'import vllm, pathlib; print(pathlib.Path(vllm.__file__).parents[1])')" /app > /dev/null || true; \
    python3 -c 'from image.engine.identity import has_bytecode; raise SystemExit(0 if has_bytecode() else "no bytecode")'

# The upstream image ships FlashInfer's kernels as compiled packages. If a version lacks them, the first start compiles the
# kernels it needs and stores them in the compile cache.
RUN python3 -c "import importlib.util as u; [print(p, 'prepared' if u.find_spec(p) else 'not in this version: cached by the first start') for p in ('flashinfer_cubin', 'flashinfer_jit_cache')]"

RUN mkdir -p /weights /cache/home && chown -R 1000:0 /weights /cache && chmod -R g=u /weights /cache

USER 1000:0
EXPOSE 8000
STOPSIGNAL SIGTERM
# Loading a model takes minutes. 127.0.0.1, because localhost may resolve to ::1; python3, because the image has no curl.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20m --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or os.environ.get('VLLM_PORT') or 8000}/health\", timeout=4)"]
ENTRYPOINT ["python3", "-m", "image.engine.standalone"]
