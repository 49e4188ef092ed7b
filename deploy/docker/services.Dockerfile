# Judge, rewrite and worker: one image, the command says which.
#   docker build -f deploy/docker/services.Dockerfile -t preceptor/services .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN python -m venv --without-pip /opt/preceptor && python -m venv /opt/build
COPY requirements/images/build.lock requirements/images/services.lock /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --no-deps --require-hashes --only-binary=:all: -r /locks/build.lock \
 && /opt/build/bin/pip --python /opt/preceptor/bin/python install --no-deps --require-hashes --only-binary=:all: \
    -r /locks/services.lock \
 && find /opt/preceptor -type d -name tests -prune -exec rm -r {} +
COPY pyproject.toml README.md LICENSE /source/
COPY client /source/client
COPY services /source/services
COPY trainer /source/trainer
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /source \
 && /opt/build/bin/pip --python /opt/preceptor/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Preceptor services" \
      org.opencontainers.image.description="Judge, rewrite and queue worker of Self-Improving Pretraining" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/preceptor /opt/preceptor
COPY deploy/docker/health.py /opt/health.py
ENV PATH=/opt/preceptor/bin:$PATH \
    HOME=/tmp \
    USER=preceptor \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PRECEPTOR_HEALTH_URL=http://127.0.0.1:8101/readyz
USER 10001:10001
EXPOSE 8101 8102 8103
HEALTHCHECK --interval=5s --timeout=25s --start-period=60s --retries=3 CMD ["python", "-I", "-S", "/opt/health.py"]
ENTRYPOINT ["python", "-m", "preceptor_services"]
CMD ["judge"]
