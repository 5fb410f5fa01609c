# Two images: `--target gateway` (both edges, no torch) and `--target triton` (the models).
# Packages are installed first and our code last, so that a change of code rebuilds one small layer. Needs BuildKit.

FROM python:3.11-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# A wheel without code. It gives the list of extras and changes only with pyproject.toml.
FROM base AS requirements
WORKDIR /src
COPY pyproject.toml ./
RUN mkdir -p service/wavserve && touch README.md service/wavserve/__init__.py \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM base AS package
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .


FROM base AS gateway
LABEL org.opencontainers.image.title="wavserve gateway" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin wavserve
RUN --mount=type=bind,from=requirements,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=cache,target=/root/.cache/pip \
    set -- /wheels/*.whl && pip install -c /constraints.txt "$1[gateway,otel]"
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --force-reinstall /wheels/*.whl
# A number, because Kubernetes' runAsNonRoot cannot check a name.
USER 10001:10001
ENV PYTHONUNBUFFERED=1
EXPOSE 8000 8001
# http.client ignores proxy settings, which a container may have. This request must not leave the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["wavserve"]
# Listens on every address in the container's own network. The `ports` of the container decide what the host exposes.
CMD ["serve", "--backend", "triton", "--triton-url", "triton:8001", "--set", "http.host=0.0.0.0", "--set", "grpc.host=0.0.0.0"]


# The release whose server has the same version as our tritonclient (2.73.0). We keep its entry point.
FROM nvcr.io/nvidia/tritonserver:26.09-py3 AS triton
LABEL org.opencontainers.image.title="wavserve models on Triton"
# Triton's Python processes use the first python3 on PATH and its packages. An environment of our own leaves the image's
# packages unchanged. The image's pip fills it from outside, because Ubuntu has ensurepip in another package.
RUN python3 -m venv --without-pip /opt/wavserve
ENV PATH=/opt/wavserve/bin:$PATH PIP_PYTHON=/opt/wavserve/bin/python3 PIP_DISABLE_PIP_VERSION_CHECK=1
# A package index for torch alone, e.g. PyTorch's index of CPU builds. Empty: PyPI, whose Linux build is for CUDA.
# torch is installed without its dependencies, which that index may not have. The next step installs them.
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX" ]; then export PIP_INDEX_URL="$TORCH_INDEX"; fi \
    && pip3 install --no-deps torch==2.13.0
RUN --mount=type=bind,from=requirements,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=cache,target=/root/.cache/pip \
    set -- /wheels/*.whl && pip3 install -c /constraints.txt "$1[models]"
# A new volume takes over the owner of this folder.
RUN install -d -o 1000 -g 1000 /bundles
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip3 install --no-cache-dir --no-deps --force-reinstall /wheels/*.whl
COPY model_repository /models
COPY policies /policies
# the image's own user, triton-server
USER 1000:1000
# HF_HUB_OFFLINE: the bundle has everything that the models load, so nothing may be downloaded.
# GOMP_SPINCOUNT: on a CPU the models take turns. Threads that keep spinning would take a core from the next model.
# MALLOC_*: one heap, which is kept. With one heap per thread, activations of changing sizes would fragment all of them.
# MODELS_AT_ONCE: how many models compute at a time; 1 on a GPU, 2 on a CPU.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface \
    WAVSERVE_BUNDLE__POLICIES=/policies \
    MODELS_AT_ONCE=1 GOMP_SPINCOUNT=1000 \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824
EXPOSE 8000 8001 8002
# This check does not notice that a model's process has died. The gateway's canaries notice it and repair the model.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["curl", "--noproxy", "*", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8000/v2/health/ready"]
# A shell expands the variable.
CMD ["sh", "-c", "exec tritonserver --model-repository=/models --disable-auto-complete-config \
     --model-control-mode=explicit --load-model=encoder --load-model=video_dit --load-model=value_dit \
     --load-model=action_dit --exit-timeout-secs=15 --rate-limit=execution_count \
     --rate-limit-resource=gpu:$MODELS_AT_ONCE --metrics-config=summary_latencies=true"]
