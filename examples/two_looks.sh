#!/usr/bin/env bash
# One reference, two looks: the controls are extracted once and used twice.
# Usage: examples/two_looks.sh OUT_FOLDER [SECONDS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: two_looks.sh OUT_FOLDER [SECONDS]}
seconds=${2:-10}
mkdir -p "$out"
controls=$(longvie extract-controls "$here/reference.mp4" -o "$out/controls")
longvie generate --controls "$controls" --first-frame prompt --seconds "$seconds" \
    --prompt "Snowy mountains at noon under a clear sky" -o "$out/snow.mp4"
longvie generate --controls "$controls" --first-frame prompt --seconds "$seconds" \
    --prompt "Black volcanic mountains at sunset" -o "$out/lava.mp4"
