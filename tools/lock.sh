#!/usr/bin/env bash
# Make requirements/*.txt anew from pyproject.toml, in its own small environment.
#
# Already locked versions stay unless `--upgrade` is given. Every published file's hash is listed, so one lock serves
# x86_64 and aarch64 alike; no index address is written, so a mirror works as well as the public index.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8
TOOL=build/lock-tool
[ -x "$TOOL/bin/uv" ] || { python3 -m venv "$TOOL" && "$TOOL/bin/pip" install --quiet "uv==$UV_VERSION"; }

lock() { # lock NAME SOURCE...: requirements/NAME.txt
  local name=$1
  shift
  "$TOOL/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate "${upgrade[@]}" -o "requirements/$name.txt" "$@" >/dev/null
}

upgrade=("$@")
lock run pyproject.toml
lock build --group build
lock test --constraint requirements/run.txt --constraint requirements/build.txt pyproject.toml --group build --group test
lock bench --constraint requirements/run.txt pyproject.toml --extra bench
