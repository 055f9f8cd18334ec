#!/usr/bin/env bash
# Starts a vLLM server and the learner that sends it weights, and ends the server when the learner ends.
#
#   environment/nodes/run.sh both MODEL OUTPUT_DIR OPTIONS...     one node: 6 GPUs learn, 2 sample
#   environment/nodes/run.sh server MODEL OUTPUT_DIR              two nodes: first on the second node,
#   environment/nodes/run.sh learner MODEL OUTPUT_DIR OPTIONS...  then on the first one
#
# OPTIONS are those of train.rl; --model, --output-dir, --rollouts and --vllm-url are given here.
# It ends with the learner and its status: 0 trained; otherwise the learner's last lines say why, and
# the same command resumes. Ctrl-C (or SIGTERM) lets the learner write a checkpoint first.
#
#   DEVICES            cuda; cpu tries all of it with tiny models and without a GPU
#   LEARNER_GPUS       0,1,2,3,4,5 (with `learner`: 0,1,2,3,4,5,6,7)
#   SERVER_GPUS        6,7         (with `server`: 0,1,2,3)
#   SERVER_URL         http://127.0.0.1:8000; with `learner` the address of the other node
#   SERVER_SECONDS     1200, the longest start of the server
#   MAX_MODEL_LEN      4096, tokens of prompt and completion together
#   LAUNCH_FILE        train/recipes/accelerate/fsdp2_8gpu.yaml, for `accelerate launch`
#   LEARNER_PYTHON     python, of the environment that has p2r (and vLLM, which sends over NCCL)
#   SERVER_PYTHON      python, of the environment that has vLLM and p2r
#   P2R_ROPE_POSITIONS apart where the learner is given --rope-positions apart
#   NCCL_*             are handed on: NCCL_SOCKET_IFNAME, NCCL_IB_HCA, NCCL_DEBUG=INFO
set -uo pipefail

fail() {
    echo "run.sh: $1" >&2
    exit 2
}

role=${1:-}
case $role in both | server | learner) ;; *) fail "'$role' is no role; give both, server or learner" ;; esac
[ $# -ge 3 ] || fail "give the model's folder and the output folder behind $role"
model=$2 output=$3
shift 3

devices=${DEVICES:-cuda}
case $devices in cuda | cpu) ;; *) fail "DEVICES=$devices: give cuda or cpu" ;; esac
[ -d "$model" ] || fail "there is no folder $model; give the folder that RL starts from"
case $role in
both) learner_gpus=${LEARNER_GPUS:-0,1,2,3,4,5} server_gpus=${SERVER_GPUS:-6,7} ;;
server) learner_gpus='' server_gpus=${SERVER_GPUS:-0,1,2,3} ;;
learner) learner_gpus=${LEARNER_GPUS:-0,1,2,3,4,5,6,7} server_gpus='' ;;
esac
shared=$(comm -12 <(tr , '\n' <<<"$learner_gpus" | sort) <(tr , '\n' <<<"$server_gpus" | sort) | xargs)
[ -z "$shared" ] || fail "GPU $shared is in LEARNER_GPUS and in SERVER_GPUS; a GPU either learns or samples"
url=${SERVER_URL:-http://127.0.0.1:8000}
port=${url##*:}
[[ $port =~ ^[0-9]+$ ]] || fail "SERVER_URL=$url has no port; give one such as http://127.0.0.1:8000"
seconds=${SERVER_SECONDS:-1200}
launch_file=${LAUNCH_FILE:-train/recipes/accelerate/fsdp2_8gpu.yaml}
mkdir -p "$output" || exit 2

count() { tr , '\n' <<<"$1" | wc -l; }

healthy() {
    "${LEARNER_PYTHON:-python}" - "$url/health" <<'PYTHON' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5)
PYTHON
}

# What the server is started with; docs/guides/vllm_rollouts.md says why.
serve() {
    local command=("${SERVER_PYTHON:-python}" -m vllm.entrypoints.openai.api_server
        --model "$model" --port "$port" --max-model-len "${MAX_MODEL_LEN:-4096}"
        --logprobs-mode processed_logprobs --trust-request-mm-kwargs
        --limit-mm-per-prompt '{"image": 4, "video": 4}')
    export VLLM_SERVER_DEV_MODE=1 VLLM_NO_USAGE_STATS=1
    if [ "$devices" = cuda ]; then
        export CUDA_VISIBLE_DEVICES=$server_gpus
        command+=(--tensor-parallel-size "$(count "$server_gpus")"
            --weight-transfer-config '{"backend": "nccl"}')
    else
        export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=nobind
        export VLLM_CPU_CI_ENV=1 OMP_NUM_THREADS=1
        command+=(--dtype float32 --enforce-eager --weight-transfer-config '{"backend": "gloo"}'
            --no-enable-chunked-prefill --max-num-batched-tokens 16384 --max-num-seqs 64)
    fi
    exec "${command[@]}"
}

learn() {
    local command=("${LEARNER_PYTHON:-python}")
    if [ "$devices" = cuda ]; then
        export CUDA_VISIBLE_DEVICES=$learner_gpus
        command+=(-m accelerate.commands.launch --config_file "$launch_file"
            --num_processes "$(count "$learner_gpus")")
    fi
    exec "${command[@]}" -m train.rl --model "$model" --output-dir "$output" \
        --rollouts vllm --vllm-url "$url" "$@"
}

server=
end_server() {
    [ -n "$server" ] || return 0
    kill -TERM -- "-$server" 2>/dev/null
    for _ in $(seq 20); do
        kill -0 -- "-$server" 2>/dev/null || return 0
        sleep 1
    done
    kill -KILL -- "-$server" 2>/dev/null
}

await_server() {
    local end=$((SECONDS + seconds))
    until healthy; do
        if [ -n "$server" ] && ! kill -0 "$server" 2>/dev/null; then
            tail -n 20 "$output/vllm.log" >&2
            fail "the vLLM server ended before it was ready; its log is $output/vllm.log"
        fi
        [ $SECONDS -lt $end ] || fail "$url/health has not answered for $seconds s; is the server there, and its port open?"
        sleep 2
    done
}

if [ "$role" = server ]; then
    serve # instead of this script: whoever stops it stops the server
fi
if [ "$role" = both ]; then
    healthy && fail "something answers at $url already; end it, or give another port by SERVER_URL"
    trap end_server EXIT
    set -m # a process group of its own: Ctrl-C is for the learner, which still has a checkpoint to write
    serve >"$output/vllm.log" 2>&1 &
    server=$!
    set +m
fi
echo "run.sh: waiting for $url" >&2
await_server
learn "$@" &
learner=$!
# Ctrl-C and SIGTERM go to train.rl itself, which ends at a checkpoint: `accelerate launch` would end
# its processes after 30 seconds.
stop_learner() {
    local processes=$learner
    [ "$devices" = cpu ] || processes=$(cat "/proc/$learner/task/$learner/children")
    echo "run.sh: train.rl writes a checkpoint and ends" >&2
    stopping=1
    # shellcheck disable=SC2086
    kill -TERM $processes
}
trap stop_learner INT TERM
stopping=1
while [ -n "$stopping" ]; do # a signal ends `wait`, not the learner
    stopping=
    wait "$learner"
    code=$?
    [ $code -eq 127 ] || status=$code # 127: it was waited for already
done
exit $status
