# syntax=docker/dockerfile:1
# The dashboard in one image. On a GPU machine the same requirements give the CUDA build; see compose.gpu.yaml.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HOME=/data/huggingface \
    ATTNSCOPE_DATA=/data \
    ATTNSCOPE_MODEL_FOLDERS=/data/models

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# chromium draws PNG, SVG and PDF exports; g++ compiles FlexAttention on a machine with no GPU.
# Their versions follow the base image's release, which is what BASE pins.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core g++ \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 attnscope \
 && install --directory --owner attnscope --group attnscope /data

WORKDIR /srv/attnscope

# Requirements before the source, so that a change of source does not install them again.
COPY requirements.txt constraints.txt ./
RUN pip install --constraint constraints.txt "$(grep -oE '^torch==[^ ]+' requirements.txt)" \
 && pip install --constraint constraints.txt --requirement requirements.txt

COPY . .
RUN pip install --no-deps --editable .

USER 10001
VOLUME ["/data"]
EXPOSE 8501
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/attnscope/health', timeout=4)"]
CMD ["attnscope", "serve", "--host", "0.0.0.0", "--port", "8501"]
