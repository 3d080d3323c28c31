#!/usr/bin/env bash
# Builds the Containerfile and runs the image: read-only, as no user of the host, stopped as an orchestrator stops it.
# No image registry is needed: the base is a root file system that Debian's tools make. What cannot be done here is
# said, with its cause, and skipped (status 0); what the image gets wrong is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=.packaging/image-base.sh
. .packaging/image-base.sh
container=rpcshare-image-check-$$

say "The image"
buildah build --quiet --format docker --network host --build-arg BASE=localhost/rpcshare-base \
  --build-arg COMPILE="${COMPILE:-1}" "${mounts[@]}" -f Containerfile -t localhost/rpcshare . >"$work/log" 2>&1 \
  || { tail -n 30 "$work/log"; exit 1; }
inspect() { podman image inspect localhost/rpcshare --format "$1"; }
megabytes() { # IMAGE: of its files; with vfs, podman's own figure counts what layers replace
  local mounted size
  mounted=$(podman image mount "$1")
  size=$(du -sm --apparent-size "$mounted" | cut -f1)
  podman image unmount "$1" >/dev/null
  echo "$size"
}
size=$(megabytes localhost/rpcshare)
echo "size: $size MB, of which the base has $(megabytes localhost/rpcshare-base) MB"
[ "$size" -lt 250 ] || { echo "the image has grown: it should be under 250 MB"; exit 1; }
[ "$(inspect '{{.Config.User}}')" = 10001:10001 ]
[ "$(inspect '{{len .Config.Healthcheck.Test}}')" -gt 1 ]

say "A container: read-only, without capabilities"
port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
limit="$(ulimit -n):$(ulimit -n)" # podman's own are more than some machines allow
"${podman[@]}" run --detach --name "$container" --read-only --tmpfs /tmp --cap-drop all \
  --security-opt no-new-privileges --network host --ulimit nofile="$limit" --ulimit nproc=4096:4096 \
  --env RPCSHARE_HOST=127.0.0.1 --env RPCSHARE_PORT="$port" localhost/rpcshare >/dev/null 2>"$work/log" \
  || { tail -n 3 "$work/log"; skip "the image is built, and this machine runs no container"; }
for _ in $(seq 150); do
  "${podman[@]}" healthcheck run "$container" >/dev/null 2>&1 && break
  [ "$("${podman[@]}" inspect "$container" --format '{{.State.Running}}')" = true ] || { "${podman[@]}" logs "$container"; exit 1; }
  sleep 0.2
done
"${podman[@]}" healthcheck run "$container"
inside() { "${podman[@]}" exec "$container" "$@"; }
[ "$(inside id -u)" = 10001 ]
[ "$(inside sh -c 'tr "\0" " " </proc/1/cmdline')" = "tini -- rpcshare serve " ]
refute inside sh -c 'touch /opt/rpcshare/x 2>/dev/null'
for program in cc gcc make pip git; do refute inside sh -c "command -v $program"; done # nothing of the build is left
"${podman[@]}" logs "$container" >"$work/log" 2>&1
grep 'rpcshare is listening' "$work/log"
[ "${COMPILE:-1}" = 0 ] || grep -q '(compiled)' "$work/log"
refute grep -q 'sign in' "$work/log"

say "A session is shared, and is there after the container was stopped and started"
export RPCSHARE_TOKEN
RPCSHARE_TOKEN=$(inside cat /var/lib/rpcshare/admin-token)
item='{"type": "message", "data": {"id": "msg_1", "role": "user"}}'
printf '[%s]' "$item" >"$work/session.json"
"${podman[@]}" exec --interactive "$container" sh -c 'cat >/tmp/session.json' <"$work/session.json"
inside env RPCSHARE_TOKEN="$RPCSHARE_TOKEN" rpcshare push /tmp/session.json ses_image_0001 --url "http://127.0.0.1:$port"
read_share() {
  python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())' \
    "http://127.0.0.1:$port/api/share/age_0001/data" | grep -q msg_1
}
read_share
began=$SECONDS
"${podman[@]}" stop --time 20 "$container" >/dev/null
[ $((SECONDS - began)) -lt 15 ] || { echo "it did not stop at SIGTERM"; exit 1; }
[ "$("${podman[@]}" inspect "$container" --format '{{.State.ExitCode}}')" = 0 ]
"${podman[@]}" start "$container" >/dev/null
for _ in $(seq 150); do "${podman[@]}" healthcheck run "$container" >/dev/null 2>&1 && break; sleep 0.2; done
read_share
say "image-check: all is well"
