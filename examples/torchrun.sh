#!/usr/bin/env bash
# One video, each clip of it denoised by several processes: on GPUs one each, else on the CPU.
# Usage: examples/torchrun.sh PROCESSES OUT.mp4 [FLAGS OF longvie generate]
set -euo pipefail
processes=${1:?usage: torchrun.sh PROCESSES OUT.mp4 [FLAGS]}
out=${2:?usage: torchrun.sh PROCESSES OUT.mp4 [FLAGS]}
# Two processes take a half of guidance each; `tiny` has none by itself, and five heads are not shared by two.
# Stopped or killed, the same command goes on, also with another number of processes.
torchrun --standalone --nproc-per-node "$processes" -m longvie_cli generate \
    --prompt "Green hills at noon, clear sky" --seconds 4 --guidance 1.5 "${@:3}" -o "$out"
