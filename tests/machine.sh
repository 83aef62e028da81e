#!/bin/bash
# Runs the tests as on another kind of machine, with all processes that they start:
#
#   tests/machine.sh KIND [ARGUMENTS OF PYTEST]
#
#   float32   a CPU that trains in float32
#   bfloat16  a CPU that trains in bfloat16, whatever this one computes that with
#   small     one core and 700 MB of free memory
#   nobody    a user without rights, with another home, time zone, locale and terminal, on a tmpfs
#
# Needs root and Linux. What the kernel says of the machine is covered by a changed copy, in a mount namespace
# of the tests' own: nobody else sees it, and it is gone with them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${MC1OPT_UNSHARED:-}" ]; then
    MC1OPT_UNSHARED=1 exec unshare --mount "$PWD/tests/machine.sh" "$@"
fi
kind=$1
shift
scratch=/media # in memory, and gone with the tests
mount -t tmpfs -o mode=0755 tmpfs "$scratch"
command=(.venv/bin/python -m pytest -p no:cacheprovider "$@")

cover() { # cover FILE SED-EXPRESSION...: readers of FILE see what sed makes of it
    sed --regexp-extended "${@:2}" "$1" >"$scratch/$(basename "$1")"
    mount --bind "$scratch/$(basename "$1")" "$1"
}

case $kind in
float32) cover /proc/cpuinfo -e 's/ (amx|avx512)_bf16//g' ;;
bfloat16) cover /proc/cpuinfo -e 's/^(flags.*)$/\1 amx_bf16/' ;;
small)
    cover /proc/meminfo -e 's/^(MemAvailable:).*/\1 700000 kB/'
    command=(taskset --cpu-list 0 "${command[@]}")
    ;;
nobody)
    # Root's home is closed to others, and the checkout may lie in it: a copy on write of it is open.
    mkdir "$scratch/upper" "$scratch/work" "$scratch/tmp"
    mount -t overlay -o "lowerdir=$HOME,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$HOME"
    chmod 755 "$HOME"
    chmod 1777 "$scratch/tmp"
    cd "$PWD" # as it is there
    command=(
        setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=-all --bounding-set=-all
        env --ignore-environment "PATH=$PATH" "TMPDIR=$scratch/tmp" "HOME=$scratch/tmp"
        TZ=Pacific/Apia LC_ALL=C COLUMNS=40 LINES=10 FORCE_COLOR=1 TERM=dumb "${command[@]}"
    )
    ;;
*) echo "unknown kind of machine: $kind" >&2 && exit 2 ;;
esac
exec "${command[@]}"
