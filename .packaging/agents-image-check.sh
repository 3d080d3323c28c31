#!/usr/bin/env bash
# Builds the image that agents run in, and has the driver `docker` start opencode in it: without a network, with a
# read-only root. No image registry is needed. What cannot be done here is said, with its cause, and skipped
# (status 0); what the image gets wrong is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=.packaging/image-base.sh
. .packaging/image-base.sh

say "The image"
buildah build --quiet --format docker --network host --build-arg BASE=localhost/rpcshare-base \
  "${mounts[@]}" -t localhost/rpcshare-agents examples/agents >"$work/log" 2>&1 \
  || { tail -n 30 "$work/log"; exit 1; }

say "opencode, started by the driver"
"${podman[@]}" system service --time 0 "unix://$work/podman.sock" >"$work/log" 2>&1 &
service=$!
trap 'kill "$service" 2>/dev/null || true; finish' EXIT
for _ in $(seq 100); do [ -S "$work/podman.sock" ] && break; sleep 0.1; done
[ -S "$work/podman.sock" ] || { tail -n 3 "$work/log"; skip "the image is built, and podman does not serve here"; }
.venv/bin/python .packaging/agents_image_check.py "$work"
say "agents-image-check: all is well"
