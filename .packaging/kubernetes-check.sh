#!/usr/bin/env bash
# Runs the driver `kubernetes` against a real kube-apiserver and etcd: whether its pods and Secrets are valid, pass the
# Pod Security Standard `restricted`, and need no right but those of examples/kubernetes/agents.yaml. There is no node:
# the tests run what a pod is made of. What cannot be done here is said, with its cause, and skipped (status 0).
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.37.2
skip() { echo "kubernetes-check is skipped: $*"; exit 0; }

command -v etcd >/dev/null || skip "needs etcd: apt-get install etcd-server"
command -v bwrap >/dev/null || skip "needs bubblewrap: apt-get install bubblewrap"
[ "$(id -u)" = 0 ] || skip "needs root, to be another user in pods"
server=${KUBE_APISERVER:-build/kube-apiserver-$version/kube-apiserver}
if [ ! -x "$server" ]; then
  command -v go >/dev/null || skip "needs Go to build kube-apiserver, or KUBE_APISERVER, its binary"
  echo "== Building kube-apiserver $version: eight minutes of two processors, once"
  folder=$(dirname "$server")
  mkdir -p "$folder"
  # Its module takes others from its own repository, which Go's module proxy has under their own names.
  (
    cd "$folder"
    printf 'module check\n\ngo 1.26\n\nrequire k8s.io/kubernetes v%s\n' "$version" >go.mod
    modules=$(go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
    sed -n 's#^\s*\(k8s.io/[a-z-]*\) => ./staging/.*#\1#p' "$modules" | sort -u \
      | sed "s#.*#replace & => & v0.${version#1.}#" >>go.mod
    printf '%s\n' 'package main' 'import (' '"os"' '"k8s.io/component-base/cli"' \
      '"k8s.io/kubernetes/cmd/kube-apiserver/app"' ')' \
      'func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }' >main.go
    go mod tidy && go build -o kube-apiserver .
  ) >"$folder/log" 2>&1 || { tail -n 5 "$folder/log"; skip "kube-apiserver $version cannot be built"; }
fi
KUBE_APISERVER=$(realpath "$server") exec .venv/bin/pytest -q tests/sandbox/test_kubernetes_api_server.py "$@"
