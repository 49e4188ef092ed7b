# The trainer, and what prepares a run for it. DEVICE is cpu or cuda.
#   docker build -f deploy/docker/trainer.Dockerfile --build-arg PIP_EXTRA_INDEX_URL=... -t preceptor/trainer .
# The CPU build of torch is on PyTorch's index of CPU builds, which has to be named; see docs/docker.md.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG DEVICE=cpu
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
RUN python -m venv --without-pip /opt/preceptor && python -m venv /opt/build
COPY requirements/images/build.lock requirements/images/trainer-${DEVICE}.lock /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --no-deps --require-hashes --only-binary=:all: -r /locks/build.lock \
 && /opt/build/bin/pip --python /opt/preceptor/bin/python install --no-deps --require-hashes --only-binary=:all: \
    -r /locks/trainer-${DEVICE}.lock \
 && find /opt/preceptor -type d -name tests -prune -exec rm -r {} + \
 && cd /opt/preceptor/lib/python3.11/site-packages/torch && rm -r test include \
 && find bin -type f ! -name torch_shm_manager -delete
COPY pyproject.toml README.md LICENSE /source/
COPY client /source/client
COPY services /source/services
COPY trainer /source/trainer
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /source \
 && /opt/build/bin/pip --python /opt/preceptor/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Preceptor trainer" \
      org.opencontainers.image.description="Trainer of Self-Improving Pretraining" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A volume takes its owner from the folder that it is first mounted over.
RUN install -d -o 10001 -g 10001 /var/lib/preceptor/models /var/lib/preceptor/runs /var/lib/preceptor/weights
COPY --from=build /opt/preceptor /opt/preceptor
ENV PATH=/opt/preceptor/bin:$PATH \
    HOME=/tmp \
    USER=preceptor \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# A job: it ends by itself, and its exit status says how. Progress is in its folder and its log.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "preceptor_trainer"]
CMD ["--help"]
