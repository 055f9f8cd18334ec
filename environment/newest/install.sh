#!/usr/bin/env bash
# Makes .venv-newest: this project with the newest transformers that it is tested with, beside .venv
# with the versions of constraints.txt. All else is as constraints.txt says.
# Does nothing where the stamp says that the same recipe has been installed already.
#
#   bash environment/newest/install.sh
#
# vLLM 0.31, the newest that TRL 1.16 works with, takes transformers below 5.18: rollouts and
# evaluation by vLLM need the older end.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-newest
newest=5.24.0
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
recipe=$(cat environment/newest/install.sh environment/torchvision_hook.py pyproject.toml \
    constraints.txt | sha256sum)
if [ "$(cat $venv/.ready 2>/dev/null)" = "$recipe" ]; then
    exit 0
fi
test -x $venv/bin/python || "$(bash environment/find_python.sh $venv)" -m venv $venv
$venv/bin/python -m pip install --quiet "uv>=0.9"
grep -v '^transformers==' constraints.txt >$venv/constraints.txt
$venv/bin/python -m uv pip install --quiet --compile-bytecode --python $venv/bin/python \
    -c $venv/constraints.txt -e '.[dev]' "transformers==$newest"
$venv/bin/python environment/torchvision_hook.py install
echo "$recipe" >$venv/.ready
