#!/bin/sh
# Stops what up.sh FOLDER has started.
set -u

export SLURM_CONF="$1/slurm.conf"
scancel --quiet --user root
scontrol shutdown
sleep 2
for file in "$1"/slurmd-*.pid "$1"/slurmctld.pid; do
    [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null
done
exit 0
