#!/bin/bash
# Our own recipe on the GPUs of one machine, all of them or GPUS of them:
#   GPUS=4 experiments/cluster/torchrun.sh
# On several machines, run it on each, with NODES and with the first one's address in HEAD.
# Arguments are added to the command:  experiments/cluster/torchrun.sh --trainer.max_epochs=10
set -euo pipefail
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
nodes=${NODES:-1}

.venv/bin/torchrun \
    --nnodes="$nodes" \
    --nproc-per-node="$gpus" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="${HEAD:-localhost}:29500" \
    --no-python \
    .venv/bin/taghead fit \
    --config experiments/modern.yaml \
    --trainer.devices="$gpus" \
    --trainer.num_nodes="$nodes" \
    --trainer.strategy=ddp \
    --data.batch_size=8 \
    --ckpt_path=last \
    "$@"
