#!/usr/bin/env bash
# Make sure that programs exist: need.sh PROGRAM:PACKAGE …, each a command or a file's path (a pattern), and Debian's package of it.
#
# As root the missing packages are installed, without starting the services they bring; otherwise the command that
# would do it is said, and the answer is a failure: nothing is left out in silence.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # where Debian keeps nginx and haproxy

missing=()
for pair in "$@"; do
  program=${pair%%:*}
  if ! command -v "$program" >/dev/null && ! compgen -G "$program" >/dev/null; then missing+=("${pair#*:}"); fi
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

install="apt-get install ${missing[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}. Install with: sudo $install" >&2
  exit 1
fi

policy=/usr/sbin/policy-rc.d # Debian's switch for "install, but start nothing"
if ! [ -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
echo "installing ${missing[*]} from Debian's packages"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  cat "$log" >&2
  echo "could not install: ${missing[*]}" >&2
  exit 1
fi
rm -f "$log"
