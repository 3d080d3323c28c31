#!/usr/bin/env bash
# Has helm and kubeconform check the chart, with the values that its users have. Both are built from Go modules unless
# they are installed; Kubernetes' schemas come from the package kubernetes-validate. What is missing is said, and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "chart-check is skipped: $*"; exit 0; }
say() { echo "== $*"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tool() { # NAME MODULE
  if command -v "$1" >/dev/null; then command -v "$1"; return; fi
  command -v go >/dev/null || return 1
  [ -x "build/tools/$1" ] || GOBIN="$PWD/build/tools" go install "$2" >"$work/log" 2>&1 || return 1
  echo "$PWD/build/tools/$1"
}
mkdir -p build/tools
helm=$(tool helm helm.sh/helm/v3/cmd/helm@v3.19.5) || { cat "$work/log" 2>/dev/null | tail -n 3; skip "needs helm, or go to build it"; }
kubeconform=$(tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0) || skip "needs kubeconform, or go to build it"

chart=examples/helm/rpcshare
oldest=1.30.0 # helm built from a module thinks of Kubernetes 1.20
python=.venv/bin/python
"$python" -m pip download -q --disable-pip-version-check --no-deps -d "$work" kubernetes-validate==1.37.0 \
  || skip "Kubernetes' schemas (the package kubernetes-validate) cannot be had"
"$python" -m zipfile -e "$work"/kubernetes_validate-*.whl "$work/package"
# The package keeps the definitions in one file, by a reference that means something to it alone.
"$python" - "$work" <<'E3'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
for version in ("v1.30.0", "v1.34.0"):
    source = work / "package/kubernetes_validate/kubernetes-json-schema" / f"{version}-local-strict"
    (work / version).mkdir()
    local = lambda text: text.replace("/api/_definitions.json#/", "#/")
    definitions = json.loads(local((source / "_definitions.json").read_text()))["$defs"]
    for name in ("service-v1", "statefulset-apps-v1", "ingress-networking-v1", "networkpolicy-networking-v1",
                 "poddisruptionbudget-policy-v1", "horizontalpodautoscaler-autoscaling-v2"):
        schema = json.loads(local((source / f"{name}.json").read_text()))
        (work / version / f"{name}.json").write_text(json.dumps({**schema, "$defs": definitions}))
E3

cat >"$work/one.yaml" <<'E2'
publicURL: https://share.example
E2
cat >"$work/all.yaml" <<'E2'
publicURL: https://share.example
replicaCount: 3
image: {repository: images.example/rpcshare, tag: 1.2.3}
imagePullSecrets: [{name: pull}]
store: {url: "s3://bucket/prefix?region=eu-central-1"}
broadcast: {url: "redis://redis:6379/0"}
database: {url: "postgresql://rpcshare@postgres/rpcshare"}
secrets: {existing: rpcshare}
secretFiles: {existing: rpcshare-files, signingKey: true, encryptionKeys: true}
env: {RPCSHARE_MAX_CREATES: "100"}
trustedProxy: 10.1.0.0/24
tls: {existingSecret: rpcshare-tls}
ingress: {enabled: true, tlsSecret: share-tls}
networkPolicy:
  enabled: true
  egress:
    - to: [{ipBlock: {cidr: 10.0.0.0/8}}]
      ports: [{port: 5432, protocol: TCP}, {port: 6379, protocol: TCP}, {port: 443, protocol: TCP}]
autoscaling: {enabled: true}
podAnnotations: {prometheus.io/scrape: "true"}
serviceMonitor: {enabled: true, token: true, labels: {release: prometheus}}
podLabels: {team: tools}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: dedicated, operator: Exists}]
topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app.kubernetes.io/name: rpcshare}}}
E2
for values in one all; do
  say "helm lint and template, with the values of $values server(s)"
  "$helm" lint --kube-version "$oldest" --strict --quiet -f "$work/$values.yaml" "$chart"
  "$helm" template --kube-version "$oldest" share "$chart" -f "$work/$values.yaml" >"$work/$values-rendered.yaml"
  for version in v1.30.0 v1.34.0; do
    folder="$work/$version"
    "$kubeconform" -summary -skip ServiceMonitor -schema-location "$folder/{{ .ResourceKind }}{{ .KindSuffix }}.json" "$work/$values-rendered.yaml" | tee "$work/said"
    if grep -q "Valid: 0" "$work/said"; then echo "nothing was checked"; exit 1; fi
  done
done
kinds=$(grep -h '^kind:' "$work/all-rendered.yaml" | sort | tr -d '\n')
[ "$kinds" = "kind: HorizontalPodAutoscalerkind: Ingresskind: NetworkPolicykind: PodDisruptionBudgetkind: Servicekind: ServiceMonitorkind: StatefulSet" ] \
  || { echo "unexpected: $kinds"; exit 1; }

grep -q 'host: "share.example"' "$work/all-rendered.yaml" || { echo "the ingress is not of publicURL's host"; exit 1; }

say "A pod of OpenShift has no user of the chart's"
"$helm" template --kube-version "$oldest" share "$chart" -f "$work/one.yaml" --set podSecurityContext.runAsUser=null \
  --set podSecurityContext.runAsGroup=null --set podSecurityContext.fsGroup=null >"$work/out"
if grep -Eq 'runAs(User|Group):|fsGroup:' "$work/out"; then echo "it has"; exit 1; fi
grep -q 'runAsNonRoot: true' "$work/out"

say "What cannot work is refused with the reason"
refused() { # REASON ARGUMENT…
  local reason=$1; shift
  if "$helm" template --kube-version "$oldest" share "$chart" "$@" >"$work/out" 2>&1; then echo "not refused: $*"; exit 1; fi
  grep -q "$reason" "$work/out" || { echo "refused for another reason: $*"; cat "$work/out"; exit 1; }
}
refused publicURL
refused 'need store.url' --set publicURL=https://share.example --set replicaCount=2
refused 'need secrets.existing' --set publicURL=https://share.example --set replicaCount=2 --set store.url=s3://b
refused 'needs secrets.existing' --set publicURL=https://share.example --set serviceMonitor.enabled=true --set serviceMonitor.token=true
refused secretFiles.existing --set publicURL=https://share.example --set secretFiles.signingKey=true
say "chart-check: all is well"
