#!/usr/bin/env bash
# The project's virtual environment from a hashed lock: setup_venv.sh requirements.txt
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1
python=${PYTHON:-python3}

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no '$python' found: install Python 3.11 or newer, or set PYTHON=/path/to/it"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$("$python" --version) is too old: Python 3.11 or newer is needed; set PYTHON=/path/to/it"

if [ ! -x .venv/bin/python ]; then
  echo "setup: making .venv"
  "$python" -m venv .venv 2>/dev/null \
    || { rm -rf .venv; fail "'$python -m venv' failed: install the venv package of your system (Debian: apt-get install python3-venv)"; }
fi
echo "setup: installing $lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" \
  2> >(grep -v '^WARNING: Location' >&2) || fail "pip could not install $lock; its words are above"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --no-index -e . || fail "the project itself could not be installed"
