#!/bin/sh
# soak.sh [CYCLES [CYCLES_OF_A_LIFE]]: create, exec and delete VMs on real Firecracker, 16 at once,
# with a kill -9 of the root half every now and then, and compare the end with the beginning. As
# root; tests/run.sh has made all it needs. 10,000 cycles, a kill after each 1,000 (about a minute).
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/build/venv/bin:$PWD/build/tools:$PATH"
export MOTTE_BUILD="${MOTTE_BUILD-$PWD/build/dev}" MOTTE_BACKEND=firecracker
export MOTTE_CYCLES="${1-10000}" MOTTE_LIFE="${2-1000}"
exec pytest -c tests/pyproject.toml -p no:cacheprovider tests/system/test_soak.py
