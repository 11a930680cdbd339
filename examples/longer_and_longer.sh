#!/usr/bin/env bash
# A flight over a landscape drawn from a seed, then more of it, then one file of both parts.
# Usage: examples/longer_and_longer.sh OUT_FOLDER [SECONDS]
set -euo pipefail
out=${1:?usage: longer_and_longer.sh OUT_FOLDER [SECONDS]}
seconds=${2:-4}
mkdir -p "$out"
first=$(longvie generate --prompt "Alien purple hills at night" --seed 7 --seconds "$seconds" -o "$out/first.mp4")
longvie extend "$first" --seconds "$seconds" -o "$out/longer.mp4"
longvie stitch "$out/first.longvie" -o "$out/again.mp4"
