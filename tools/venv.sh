#!/usr/bin/env bash
# Make a virtual environment at $1 with the first Python from 3.11 on that is found; keep one that already works.
#
# Debian ships venv's pip apart from Python: as root the package is installed, else its name is said.
set -euo pipefail
venv=$1
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$new_enough" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  exit 0
fi

python=
for name in python3.11 python3 python3.13 python3.12; do
  if command -v "$name" >/dev/null && "$name" -c "$new_enough" 2>/dev/null; then
    python=$name
    break
  fi
done
if [ -z "$python" ]; then
  echo "Sluice needs Python 3.11 or newer, and none was found on PATH. On Debian 12: apt-get install python3-venv" >&2
  exit 1
fi

if ! "$python" -c 'import venv; from ensurepip import bootstrap' 2>/dev/null; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$(dirname "$0")/need.sh" "/usr/lib/python$version/ensurepip/__init__.py:python$version-venv"
fi
rm -rf "$venv"
"$python" -m venv "$venv"
