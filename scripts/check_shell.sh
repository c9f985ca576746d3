#!/usr/bin/env bash
# Shell scripts: shellcheck where it is installed, bash's own syntax check everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts=(scripts/*.sh .ci/run)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then
  shellcheck "${scripts[@]}"
else
  echo "shellcheck is not installed: syntax checked only"
fi
