#!/usr/bin/env bash
# The three stages of LongVie 2 on one machine: torchrun.sh GPUS
set -euo pipefail
cd "$(dirname "$0")"
gpus=${1:-8}
for stage in control degradation history; do
    # Stopped or killed, the same command goes on; a finished stage is passed over.
    torchrun --nproc-per-node "$gpus" -m longvie_cli train "$stage" --config "longvie2-$stage.yaml"
done
