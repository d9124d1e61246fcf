# CPU image; docs/install.md has the arguments for NVIDIA GPUs.
FROM python:3.12-slim AS build
ARG EXTRAS=cpu,demo,plots,web
# address of an index of torch builds, as torch's installation page gives it; by default pip's own
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch apart, so that a change of this package does not download it again
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . /src
RUN pip install "/src[$EXTRAS]"

FROM python:3.12-slim
# FAISS and torch need the runtime of OpenMP
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp
RUN useradd --create-home --uid 1000 astronomer && mkdir /data && chown astronomer /data
USER astronomer
WORKDIR /data
ENTRYPOINT ["specclip-search"]
CMD ["--help"]
