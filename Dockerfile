# All commands in one image, with the versions of constraints.txt.
#
#   docker build -t videop2r .                              for GPUs: torch with CUDA
#   docker build -t videop2r:cpu --build-arg TORCH=cpu .    torch for CPUs, a fifth of the size
#   docker run --rm -v "$PWD:/data" videop2r:cpu build --help
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" videop2r rl ...
#
# EXTRAS chooses what is installed: `--build-arg EXTRAS=claude` builds data with Claude, without torch.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cuda
ARG EXTRAS=claude,openai,train,audit,ui
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /opt/videop2r
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY cli cli
COPY media media
COPY judges judges
COPY pipeline pipeline
COPY train train
COPY sandbox sandbox
RUN case "$TORCH" in \
        cpu) pip install -c constraints.txt torch torchvision \
            --index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "TORCH is cpu or cuda, not $TORCH" >&2; exit 2 ;; \
    esac
RUN pip install -c constraints.txt ".[$EXTRAS]"
WORKDIR /data
ENTRYPOINT ["vp2r"]
CMD ["--help"]
