#!/usr/bin/env bash
#SBATCH --job-name=longvie2
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
# The three stages of LongVie 2 on two machines of eight GPUs: sbatch examples/train/slurm.sh
# Requeued after a stop or a failure, it goes on from the newest checkpoint. /models, /data and this folder are
# seen by all machines.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?}/examples/train"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
for stage in control degradation history; do
    srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-backend c10d \
        --rdzv-id "$SLURM_JOB_ID-$stage" --rdzv-endpoint "$head:29400" \
        -m longvie_cli train "$stage" --config "longvie2-$stage.yaml"
done
