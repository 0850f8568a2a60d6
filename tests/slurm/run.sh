#!/bin/bash
# The scripts of docs/hpc on a SLURM of this machine (cluster.sh): run.sh FOLDER, as root, with sciresdiff on the PATH.
# FOLDER is made; PARTS names some of the tests (arrays comes first). Every test ends in one line, "ok" or "FAILED"; the exit code is the number of those that failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
hpc=$here/../../docs/hpc
mkdir -p "$1" && cd "$1" || exit 1
export SLURM_CONF=$PWD/slurm/slurm.conf OMP_NUM_THREADS=1
failures=0

says() {  # says NAME COMMAND...: whether the command holds
    if "${@:2}"; then echo "ok      $1"; else echo "FAILED  $1"; failures=$((failures + 1)); fi
}

same() {  # same FOLDER FOLDER: the same frames, byte for byte
    local file
    for file in "$1"/*.fits; do cmp "$file" "$2/${file##*/}" || return 1; done
}

waited() {  # waited NUMBER STATE: a job is in a state within two minutes
    for _ in $(seq 240); do
        scontrol -o show job "$1" | grep -q "JobState=$2" && return 0
        sleep 0.5
    done
    scontrol show job "$1"
    return 1
}

frames() {
    mkdir -p low
    python - << 'PY'
import numpy as np
from astropy.io import fits
for n in range(4):
    noise = np.random.default_rng(n).normal(size=(64, 64))
    y, x = np.mgrid[:64, :64]
    star = 200 * np.exp(-((y - 30 - n) ** 2 + (x - 33) ** 2) / 4)
    fits.writeto(f"low/frame{n}.fits", (star + noise).astype(np.float32), overwrite=True)
noise = np.random.default_rng(9).normal(size=(300, 3400))
noise[::30, ::30] += 300
fits.writeto("huge.fits", noise.astype(np.float32), overwrite=True)
PY
    cat > recipe.toml << 'TOML'
[data]
patch = 12
scene_px = 64
pool = 2
[loop]
batch = 4
interval = 1e9
bf16 = false
TOML
    upscaling=(--scale 2 --psf gaussian:fwhm=2px --samples 2 --no-checks --device cpu)
    training=(--recipe recipe.toml --scale 2 --preset tiny --device cpu)
}

losses_match() {  # losses_match A B: the last lines of two logs tell the same loss
    python - "$1" "$2" << 'PY'
import json, sys
a, b = (json.loads(open(p).readlines()[-1]) for p in sys.argv[1:])
sys.exit(not (a["samples"] == b["samples"] and abs(a["loss"] - b["loss"]) < 1e-4 * abs(a["loss"])))
PY
}

arrays() {
    local small=(--wait --array=1-2 --cpus-per-task=1 --time=10)
    sciresdiff upscale -q low -o serial --threads 1 "${upscaling[@]}" || return 1
    says "a job array ends well" sbatch -Q "${small[@]}" "$hpc/array.sbatch" low array "${upscaling[@]}"
    says "it writes what one process writes" same serial array
    says "its manifest has a line for every frame" test "$(grep -c '"status": *"done"' array.jsonl)" = 4
    rm array/frame2_x2.fits array/frame2_x2.fits.json
    says "the same line again ends well" sbatch -Q "${small[@]}" "$hpc/array.sbatch" low array "${upscaling[@]}"
    says "it does what is missing" same serial array
    says "and nothing else" test "$(grep -c '"status": *"done"' array.jsonl)" = 5
}

blocks() {  # one frame of several blocks
    local small=(--wait --array=1-3 --cpus-per-task=1 --time=10) options=(--scale 2 --model physics --psf gaussian:fwhm=2px)
    options+=(--samples 2 --no-checks --device cpu)
    sciresdiff upscale -q huge.fits -o huge-serial.fits --threads 1 "${options[@]}" || return 1
    says "an array over the blocks of one frame ends well" \
        sbatch -Q "${small[@]}" "$hpc/array.sbatch" huge.fits huge-array.fits "${options[@]}"
    says "it writes what one process writes" cmp huge-serial.fits huge-array.fits
    says "nothing else is left" test -z "$(find . -maxdepth 1 -name '.huge*')"
    daskers huge.fits huge-dask.fits "${options[@]}"
    says "it writes what one process writes" cmp huge-serial.fits huge-dask.fits
    options=(--scale 2 --gain 2 --read-noise 3 --seed 1)
    sciresdiff degrade -q huge.fits -o coarse-serial.fits --threads 1 "${options[@]}" || return 1
    export COMMAND=degrade
    says "an array that degrades one frame ends well" \
        sbatch -Q "${small[@]}" "$hpc/array.sbatch" huge.fits coarse-array.fits "${options[@]}"
    says "it writes what one process writes" cmp coarse-serial.fits coarse-array.fits
    unset COMMAND
}

daskers() {
    local few=(--wait --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --time=10)
    says "Dask on two nodes ends well" sbatch -Q "${few[@]}" "$hpc/dask.sbatch" "$@"
}

dasked() {
    daskers low dasked "${upscaling[@]}"
    says "it writes what one process writes" same serial dasked
}

jobqueue() {
    sed -e 's/^CORES = 4/CORES = 1/' -e 's/8GB/1GB/' "$hpc/dask_slurm.py" > dask_slurm.py
    says "dask-jobqueue ends well" python dask_slurm.py 2 upscale low -o queued "${upscaling[@]}"
    says "it writes what one process writes" same serial queued
}

trainings() {
    local two=(--nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --gpus-per-node=0 --time=10)
    sciresdiff train-prior -q -o one.safetensors "${training[@]}" --images 24 || return 1
    says "training on two nodes with srun ends well" \
        sbatch -Q --wait "${two[@]}" "$hpc/train.sbatch" train-prior -o two.safetensors "${training[@]}" --images 24
    says "its loss is that of one process" losses_match one.jsonl two.jsonl
    says "training on two nodes with torchrun ends well" sbatch -Q --wait "${two[@]}" "$hpc/train-torchrun.sbatch" \
        train-prior -o run.safetensors "${training[@]}" --images 24
    says "its loss is that of one process" losses_match one.jsonl run.jsonl
    stopped "${two[@]}"
}

stopped() {
    local job log
    job=$(sbatch --parsable "$@" "$hpc/train.sbatch" train-prior -o long.safetensors "${training[@]}" --images 100000)
    log=train-$job.log
    waited "$job" RUNNING
    until grep -q "prior of" "$log" 2> /dev/null; do sleep 0.5; done
    sleep 5
    scancel --signal=TERM "$job"
    says "SIGTERM ends all processes of a training, and the job waits in the queue again" waited "$job" PENDING
    says "its state is saved" grep -q "stopped after .* the same command goes on" "$log"
    scontrol update "JobId=$job" StartTime=now
    waited "$job" RUNNING
    until [ "$(grep -c "prior of" "$log")" = 2 ]; do sleep 0.5; done
    sleep 5
    scancel --signal=TERM "$job"
    waited "$job" PENDING
    says "it goes on from there" python - "$log" << 'PY'
import re, sys
first, second = map(int, re.findall(r"stopped after (\d+) samples", open(sys.argv[1]).read()))
sys.exit(not 0 < first < second)
PY
    scancel "$job"
}

"$here/cluster.sh" start "$PWD/slurm" || exit 1
trap '"$here/cluster.sh" stop "$PWD/slurm"' EXIT
frames
for part in ${PARTS:-arrays dasked jobqueue blocks trainings}; do "$part"; done
echo "$failures failed"
exit "$failures"
