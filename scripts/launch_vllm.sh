#!/usr/bin/env bash
# Starts a real vLLM on this machine's GPUs, bound to 127.0.0.1: the gateway is its only client.
#
#   MODEL_NAME=Qwen/Qwen3-8B TP_SIZE=1 scripts/launch_vllm.sh
#   DRY_RUN=1 MODEL_NAME=Qwen/Qwen3-8B scripts/launch_vllm.sh     # print the command, start nothing
#
# Settings come from the environment, then from config/.env, which never overrides the environment:
#
#   MODEL_NAME              model to serve: a Hugging Face name or a directory (required)
#   TP_SIZE                 GPUs that share the model by tensor parallelism (2)
#   VLLM_PORT               port that the server listens on (8000)
#   QUANTIZATION            quantization method, such as fp8 or awq (what the model says)
#   GPU_MEMORY_UTILIZATION  share of each GPU's memory to take, above 0 and up to 1 (vLLM's own default)
#   MAX_MODEL_LEN           longest prompt and answer together, in tokens (what the model says)
#   MAX_NUM_SEQS            requests computed at once (vLLM's own default)
#   MODEL_CACHE_DIR         where model weights are downloaded to (Hugging Face's cache)
#   SWAP_SPACE_GB           host memory per GPU, in GiB, that KV cache blocks are moved to (none)
#   TOOL_CALL_PARSER        parser of the model's tool calls, such as hermes (no tool calls)
#   HF_TOKEN                for models that need a login; handed on by environment, never printed
#   VLLM_API_KEY            key that vLLM asks for; handed on by environment, never printed
#   VLLM_EXTRA_ARGS         further arguments, quoted as in a shell
#
# Written against vLLM 0.33.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HOST=127.0.0.1
TESTED_VERSION=0.33.0
SETTINGS=(MODEL_NAME TP_SIZE VLLM_PORT QUANTIZATION GPU_MEMORY_UTILIZATION MAX_MODEL_LEN
    MAX_NUM_SEQS MODEL_CACHE_DIR SWAP_SPACE_GB TOOL_CALL_PARSER HF_TOKEN VLLM_API_KEY
    VLLM_EXTRA_ARGS TORCH_NCCL_BLOCKING_WAIT TRITON_CACHE_DIR)

main() {
    read_env_file "$ROOT/config/.env"
    check_settings
    build_command
    build_environment
    print_command
    [[ ${DRY_RUN:-} =~ ^(1|true|yes)$ ]] && return
    check_machine
    mkdir -p "$TRITON_CACHE_DIR"
    exec "${COMMAND[@]}"
}

# Take the known settings that the environment does not have; the file is read, never executed.
read_env_file() {
    [[ -r $1 ]] || return 0
    local line name value
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || continue
        name=${BASH_REMATCH[2]}
        value=$(unquoted "${BASH_REMATCH[3]}")
        if [[ " ${SETTINGS[*]} " == *" $name "* && -z ${!name+set} ]]; then
            printf -v "$name" '%s' "$value"
        fi
    done <"$1"
}

# Print a value of the file without its quotes, or without blanks and a comment behind it.
unquoted() {
    local value=${1%$'\r'}
    if [[ $value =~ ^\"(.*)\"[[:space:]]*(#.*)?$ || $value =~ ^\'(.*)\'[[:space:]]*(#.*)?$ ]]; then
        value=${BASH_REMATCH[1]}
    else
        value=${value%%[[:space:]]#*}
        value=${value%"${value##*[![:space:]]}"}
    fi
    printf '%s' "$value"
}

check_settings() {
    [[ -n ${MODEL_NAME:-} ]] ||
        refuse "MODEL_NAME is not set: name the model to serve, such as MODEL_NAME=Qwen/Qwen3-8B"
    : "${TP_SIZE:=2}" "${VLLM_PORT:=8000}"
    check_whole TP_SIZE VLLM_PORT MAX_MODEL_LEN MAX_NUM_SEQS
    check_decimal GPU_MEMORY_UTILIZATION SWAP_SPACE_GB
    check_share GPU_MEMORY_UTILIZATION
    [[ ${VLLM_EXTRA_ARGS:-} != *--api-key* ]] ||
        refuse "--api-key in VLLM_EXTRA_ARGS shows the key to all users here (ps): set VLLM_API_KEY"
    [[ ${VLLM_EXTRA_ARGS:-} != *--swap-space* ]] ||
        refuse "--swap-space is gone from vLLM: set SWAP_SPACE_GB, which becomes --kv-offloading-size"
}

check_whole() {
    local name
    for name in "$@"; do
        [[ -z ${!name:-} || ${!name} =~ ^[1-9][0-9]*$ ]] ||
            refuse "$name must be a whole number of at least 1, not '${!name}'"
    done
}

check_decimal() {
    local name
    for name in "$@"; do
        [[ -z ${!name:-} || ${!name} =~ ^([0-9]+(\.[0-9]*)?|\.[0-9]+)$ ]] ||
            refuse "$name must be a number, not '${!name}'"
    done
}

check_share() {
    [[ -z ${!1:-} ]] || awk -v share="${!1}" 'BEGIN { exit !(share > 0 && share <= 1) }' ||
        refuse "$1 must be above 0 and at most 1, not '${!1}'"
}

build_command() {
    COMMAND=(vllm serve "$MODEL_NAME" --host "$HOST" --port "$VLLM_PORT")
    COMMAND+=(--tensor-parallel-size "$TP_SIZE")
    # Cached prompt tokens are reported in usage; probes and scrapes stay out of the access log.
    COMMAND+=(--enable-prompt-tokens-details)
    COMMAND+=(--disable-access-log-for-endpoints "/health,/metrics")

    add_option --quantization "${QUANTIZATION:-}"
    add_option --gpu-memory-utilization "${GPU_MEMORY_UTILIZATION:-}"
    add_option --max-model-len "${MAX_MODEL_LEN:-}"
    add_option --max-num-seqs "${MAX_NUM_SEQS:-}"
    add_option --download-dir "${MODEL_CACHE_DIR:-}"
    add_option --kv-offloading-size "$(offloading_size)"
    if [[ -n ${TOOL_CALL_PARSER:-} ]]; then
        COMMAND+=(--enable-auto-tool-choice --tool-call-parser "$TOOL_CALL_PARSER")
    fi
    add_extra_arguments
}

add_option() {
    [[ -z $2 ]] || COMMAND+=("$1" "$2")
}

# Print the host memory for all ranks: the old --swap-space counted per GPU, its successor in total.
offloading_size() {
    awk -v each="${SWAP_SPACE_GB:-0}" -v ranks="$TP_SIZE" 'BEGIN { if (each > 0) print each * ranks }'
}

# xargs takes quotes as a shell does, but expands and executes nothing.
add_extra_arguments() {
    [[ -n ${VLLM_EXTRA_ARGS:-} ]] || return 0
    local split extra
    split=$(xargs printf '%s\n' <<<"$VLLM_EXTRA_ARGS") || refuse "VLLM_EXTRA_ARGS has unbalanced quotes"
    mapfile -t extra <<<"$split"
    COMMAND+=("${extra[@]}")
}

# VLLM_PORT is ours: vLLM reads that name as the base of its internal ports and would take the
# server's own port for them.
build_environment() {
    export -n VLLM_PORT VLLM_EXTRA_ARGS
    export TORCH_NCCL_BLOCKING_WAIT=${TORCH_NCCL_BLOCKING_WAIT:-1}
    export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$ROOT/.triton_cache}
    [[ -z ${HF_TOKEN:-} ]] || export HF_TOKEN
    [[ -z ${VLLM_API_KEY:-} ]] || export VLLM_API_KEY
}

print_command() {
    printf 'TORCH_NCCL_BLOCKING_WAIT=%q TRITON_CACHE_DIR=%q ' "$TORCH_NCCL_BLOCKING_WAIT" "$TRITON_CACHE_DIR"
    [[ -z ${HF_TOKEN:-} ]] || printf 'HF_TOKEN=.... '
    [[ -z ${VLLM_API_KEY:-} ]] || printf 'VLLM_API_KEY=.... '
    printf '%q ' "${COMMAND[@]}"
    printf '\n'
}

check_machine() {
    local gpus
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || gpus=0
    [[ $gpus -gt 0 ]] || warn "no NVIDIA GPU was found; \`make vllm-cpu\` or \`make sim\` need none"
    command -v vllm >/dev/null ||
        refuse "vllm is not installed here. Give it an environment of its own and put that first in PATH:
  python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm==$TESTED_VERSION
  PATH=~/vllm/bin:\$PATH make vllm MODEL_NAME=$MODEL_NAME"
    ! (exec 3<>"/dev/tcp/$HOST/$VLLM_PORT") 2>/dev/null ||
        refuse "something listens at $HOST:$VLLM_PORT already: stop it, or set VLLM_PORT"
    [[ $gpus -eq 0 || $gpus -ge $TP_SIZE ]] ||
        refuse "TP_SIZE is $TP_SIZE, but this machine shows $gpus GPU(s): set TP_SIZE=$gpus"
}

warn() {
    printf 'launch_vllm: %s\n' "$1" >&2
}

refuse() {
    warn "$1"
    exit 2
}

main
