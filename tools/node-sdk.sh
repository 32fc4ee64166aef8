#!/usr/bin/env bash
# Install the npm packages that tests/sdk_node drives the gateway with, when its lock changed.
set -euo pipefail
cd "$(dirname "$0")/../tests/sdk_node" 2>/dev/null || exit 0

stamp=node_modules/.installed
if [ -e $stamp ] && [ $stamp -nt package-lock.json ]; then exit 0; fi
../../tools/need.sh node:nodejs npm:npm
echo "installing the npm packages the SDK tests run on"
npm ci --silent --no-audit --no-fund
touch $stamp
