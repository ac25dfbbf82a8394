#!/bin/sh
# A Slurm of two virtual nodes on this machine, to test with. Needs root, and Debian's packages slurm-wlm and munge.
#
#   tests/slurm/up.sh FOLDER           starts it; logs and state go to FOLDER
#   export SLURM_CONF=FOLDER/slurm.conf
#   pytest tests/test_slurm.py
#   tests/slurm/down.sh FOLDER
set -eu

folder=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$folder/state"

mkdir -p /run/munge
chown munge: /run/munge
pgrep -x munged >/dev/null || runuser -u munge -- munged

cat >"$folder/slurm.conf" <<CONF
ClusterName=wsolkit
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdSpoolDir=$folder/spool-%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=requeue_delay=0,batch_sched_delay=0,sched_interval=2
SlurmdTimeout=10
ReturnToService=2
NodeName=node1 NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=2000 State=UNKNOWN
NodeName=node2 NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF

export SLURM_CONF="$folder/slurm.conf"
slurmctld -f "$SLURM_CONF"
for node in node1 node2; do
    mkdir -p "$folder/spool-$node"
    slurmd -f "$SLURM_CONF" -N "$node"
done
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    [ "$(sinfo --noheader --format=%T | sort -u)" = idle ] && exit 0
    sleep 1
done
sinfo
exit 1
