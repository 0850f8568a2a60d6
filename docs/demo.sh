#!/usr/bin/env bash
# The main job on two real frames: make each coarser with known blur and noise, restore it, and hold the result
# against the original.  Everything goes into the folder demo/ (or the folder given as the first argument).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-demo}
mkdir -p "$out"

step() { printf '\n== %s\n$ %s\n' "$1" "${*:2}"; "${@:2}"; }

# 47 Tuc, Hubble ACS: blur of sigma 0.6 coarse pixels (2.4 fine ones at x4), photon and read noise.
kernel=gaussian:sigma=2.4px
step "47 Tuc: degrade by 4" \
  sciresdiff degrade sample_data/47tuc.fits -o "$out/47tuc_low.fits" --scale 4 --kernel $kernel --gain 10 --read-noise 320 --overwrite
step "47 Tuc: restore" \
  sciresdiff upscale "$out/47tuc_low.fits" -o "$out/47tuc_high.fits" --scale 4 --overwrite
step "47 Tuc: evaluate" \
  sciresdiff evaluate "$out/47tuc_high.fits" --low "$out/47tuc_low.fits" --truth sample_data/47tuc.fits \
  --report "$out/47tuc.html" --csv "$out/47tuc.csv" --overwrite

# C. elegans, widefield fluorescence.
kernel=gaussian:sigma=1.2px
step "C. elegans: degrade by 2" \
  sciresdiff degrade sample_data/celegans.tif -o "$out/celegans_low.tif" --scale 2 --kernel $kernel --gain 1 --read-noise 8 --overwrite
step "C. elegans: restore" \
  sciresdiff upscale "$out/celegans_low.tif" -o "$out/celegans_high.tif" --scale 2 --overwrite
step "C. elegans: evaluate" \
  sciresdiff evaluate "$out/celegans_high.tif" --low "$out/celegans_low.tif" --truth sample_data/celegans.tif \
  --report "$out/celegans.html" --csv "$out/celegans.csv" --overwrite

printf '\nImages:   %s\nReports:  %s\n' "$(echo "$out"/*_high.fits "$out"/*_high.tif)" "$(echo "$out"/*.html)"
