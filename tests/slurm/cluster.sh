#!/bin/bash
# A SLURM of one machine, on the loopback interface: munge, slurmctld and a slurmd for each of two nodes, whose names
# stand in /etc/hosts while it runs.
#
#   cluster.sh start FOLDER    start it; all its files are in FOLDER, which is made
#   cluster.sh stop FOLDER     end it
#
# Run as root. Debian: apt-get install --no-install-recommends slurm-wlm munge. Then
#   export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
MARK='# tests/slurm/cluster.sh'
CTLD_PORT=${CTLD_PORT:-26817}

configure() {
    mkdir -p "$1"/{state,spool-node1,spool-node2,munge}
    chmod 700 "$1/munge"
    dd if=/dev/urandom of="$1/munge/key" bs=1 count=1024 status=none
    chmod 600 "$1/munge/key"
    cat > "$1/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$1/munge/socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/spool-%n
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/slurmd-%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=10
MinJobAge=3600
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((CTLD_PORT + 1)) CPUs=4 RealMemory=4000
NodeName=node2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((CTLD_PORT + 2)) CPUs=4 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
}

start() {
    configure "$1"
    grep -q "$MARK" /etc/hosts || echo "127.0.0.1 node1 node2 $MARK" >> /etc/hosts
    munged --force --key-file="$1/munge/key" --socket="$1/munge/socket" --pid-file="$1/munge/pid" \
        --log-file="$1/munge/log" --seed-file="$1/munge/seed"
    export SLURM_CONF=$1/slurm.conf
    slurmctld
    slurmd -N node1
    slurmd -N node2
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -t idle -o %N 2> /dev/null | wc -l)" = 2 ] && return 0
        sleep 0.5
    done
    sinfo -N || true
    tail -n 5 "$1"/*.log
    return 1
}

stop() {
    SLURM_CONF=$1/slurm.conf timeout 10 scancel --user="$(id -un)" && sleep 3 || true
    for file in "$1"/slurmd-*.pid "$1/slurmctld.pid" "$1/munge/pid"; do
        [ -s "$file" ] && kill "$(cat "$file")" 2> /dev/null || true
    done
    hosts=$(grep -v "$MARK" /etc/hosts) && echo "$hosts" > /etc/hosts
}

[ $# = 2 ] || { sed -n '2,9p' "$0"; exit 2; }
"$1" "$2"
