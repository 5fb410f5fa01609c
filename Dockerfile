# Two images: `--target gateway` (both edges, no torch) and `--target triton` (the models).
# Packages come first and our code last: a change of code makes one small layer anew. Needs BuildKit.

FROM python:3.11-slim-bookworm AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# A wheel without code, for its list of extras alone: it changes only with pyproject.toml.
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
    set -- /wheels/*.whl && pip install -c /constraints.txt "$1[gateway]"
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps --force-reinstall /wheels/*.whl
# A number, not the name: Kubernetes' runAsNonRoot cannot judge names.
USER 10001:10001
ENV PYTHONUNBUFFERED=1
EXPOSE 8000 8001
# http.client knows no proxies: a container may be given some, and this must not leave it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["wavserve"]
# Every address of the container's own network; which of them the host shows is told where it is run.
CMD ["serve", "--backend", "triton", "--triton-url", "triton:8001", "--set", "http.host=0.0.0.0", "--set", "grpc.host=0.0.0.0"]


# The release whose server has the version of our tritonclient (2.73.0). Its entry point is kept.
FROM nvcr.io/nvidia/tritonserver:26.09-py3 AS triton
LABEL org.opencontainers.image.title="wavserve models on Triton"
# Triton's Python processes take the first python3 on PATH and its packages, so an environment of our own leaves the
# image's packages alone. The image's pip fills it from outside: Ubuntu keeps what puts pip inside in another package.
RUN python3 -m venv --without-pip /opt/wavserve
ENV PATH=/opt/wavserve/bin:$PATH PIP_PYTHON=/opt/wavserve/bin/python3 PIP_DISABLE_PIP_VERSION_CHECK=1
# An index for torch alone, e.g. the one of PyTorch's CPU builds; empty: PyPI, whose Linux build is for CUDA.
# Without dependencies, which that index need not hold: the next step brings them.
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX" ]; then export PIP_INDEX_URL="$TORCH_INDEX"; fi \
    && pip3 install --no-deps torch==2.13.0
RUN --mount=type=bind,from=requirements,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=cache,target=/root/.cache/pip \
    set -- /wheels/*.whl && pip3 install -c /constraints.txt "$1[models]"
# A new volume takes the owner of the folder it covers.
RUN install -d -o 1000 -g 1000 /bundles
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip3 install --no-cache-dir --no-deps --force-reinstall /wheels/*.whl
COPY model_repository /models
# triton-server, the image's own user
USER 1000:1000
# Everything the models load is in the bundle: nothing may be fetched in its stead.
# GOMP_SPINCOUNT: on a CPU the models take turns, and one whose threads go on spinning takes a core from the next.
# MALLOC_*: one heap that is kept; with one a thread, activations of ever new sizes leave them full of holes.
# MODELS_AT_ONCE: that compute; 1 on a GPU, 2 on a CPU.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface \
    MODELS_AT_ONCE=1 GOMP_SPINCOUNT=1000 \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824
EXPOSE 8000 8001 8002
# Not to be believed about a model's process that has died: the gateway's canaries see that, and repair it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["curl", "--noproxy", "*", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8000/v2/health/ready"]
# A shell, for the variable in it.
CMD ["sh", "-c", "exec tritonserver --model-repository=/models --disable-auto-complete-config \
     --model-control-mode=explicit --load-model=encoder --load-model=video_dit --load-model=value_dit \
     --load-model=action_dit --exit-timeout-secs=15 --rate-limit=execution_count \
     --rate-limit-resource=gpu:$MODELS_AT_ONCE --metrics-config=summary_latencies=true"]
