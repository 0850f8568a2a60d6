"""Workers that queue as jobs of their own, as many as there is work for: dask-jobqueue.

python dask_slurm.py 20 upscale INPUT -o OUTPUT [options]     or degrade, or evaluate

20 is the largest number of jobs.  The same line again does what is missing.
"""

import subprocess
import sys

from dask_jobqueue import SLURMCluster

CORES = 4


def main() -> int:
    """The exit code of the command, with a cluster about it."""
    jobs, words = int(sys.argv[1]), sys.argv[2:]
    cluster = SLURMCluster(
        cores=1,  # one piece at a time, with all CPUs of the job
        processes=1,
        job_cpu=CORES,
        memory="8GB",
        walltime="02:00:00",
        worker_extra_args=["--lifetime", "110m", "--lifetime-stagger", "5m", "--memory-limit", "0"],
        scheduler_options={"dashboard_address": None},
    )
    with cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=jobs)
        address = ["--scheduler", cluster.scheduler_address, "--threads", str(CORES)]
        return subprocess.run(["sciresdiff", *words, *address], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
