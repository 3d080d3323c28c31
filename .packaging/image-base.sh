# Sourced by the checks of images: storage of their own, and a base image that needs no registry.
# What cannot be done here is said, with its cause, and skipped (status 0). Sets work, podman and mounts.

skip() { echo "image-check is skipped: $*"; exit 0; }
say() { echo "== $*"; }
# A line that begins with `!` never ends a script, whatever comes of it.
refute() { if "$@"; then echo "must fail, and does not: $*"; exit 1; fi; }

[ "$(uname -s)" = Linux ] || skip "needs Linux"
[ "$(id -u)" = 0 ] || skip "needs root, for mmdebstrap and the mounts of containers"
for program in buildah podman mmdebstrap; do
  command -v "$program" >/dev/null || skip "needs $program: apt-get install $program"
done

work=$(mktemp -d)
# Storage of its own: nothing of it is left, and no image of the host is used. vfs and chroot need no kernel support.
export CONTAINERS_STORAGE_CONF="$work/storage.conf" BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/graph" "$work/run" >"$CONTAINERS_STORAGE_CONF"
# crun, podman's own choice, runs nothing where cgroups are of both versions.
podman=(podman)
if command -v runc >/dev/null; then podman+=(--runtime runc --cgroup-manager cgroupfs); fi
finish() {
  "${podman[@]}" rm --all --force --time 0 >/dev/null 2>&1 || true
  chmod -R u+w "$work" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

say "A root file system by mmdebstrap"
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
# As small as Debian's own slim images: no recommended packages, no usrmerge (which needs all of Perl), no manuals.
merged=/usr/share/mmdebstrap/hooks/merged-usr
mmdebstrap --quiet --variant=minbase --include=ca-certificates,usr-is-merged --hook-dir="$merged" \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  "$suite" "$work/base.tar" >"$work/log" 2>&1 \
  || { tail -n 3 "$work/log"; skip "mmdebstrap cannot make a base of Debian $suite"; }
base=$(buildah from scratch)
buildah add -q "$base" "$work/base.tar" / >/dev/null
buildah commit -q --rm "$base" localhost/rpcshare-base >/dev/null
rm "$work/base.tar"

# How this machine reaches its package registries is its own matter.
mounts=()
for file in /etc/ssl/certs/ca-certificates.crt /etc/pip.conf; do
  [ -f "$file" ] && mounts+=(--volume "$file:$file:ro")
done
