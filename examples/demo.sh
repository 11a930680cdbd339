#!/usr/bin/env bash
# The main job on the embedded preset: the geometry of the reference, the look of the prompt.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out
longvie generate --video examples/reference.mp4 --first-frame prompt \
    --prompt "Snowy mountains at noon under a clear sky" --seconds 10 -o out/demo.mp4
