#!/usr/bin/env bash
# What is measured on a GPU, in one command and without network:
#
#     bash benchmarks/gpu/run.sh [--dry] [--minutes 20] [--output-dir out/gpu]
#
# PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" benchmarks/gpu/run.py "$@"
