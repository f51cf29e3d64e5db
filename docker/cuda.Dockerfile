# excel on NVIDIA GPUs; torch brings CUDA, the host its driver and the container toolkit.
#   docker build -f docker/Dockerfile --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t excel:cuda-base .
#   docker build -f docker/cuda.Dockerfile -t excel:cuda docker
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/work" -v excel-store:/store excel:cuda run voc --data VOC2012 --device cuda
FROM excel:cuda-base
USER root
# Triton compiles its launchers with a C compiler when a kernel is first used.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER excel
