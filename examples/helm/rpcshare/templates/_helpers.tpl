{{- define "rpcshare.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "rpcshare.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rpcshare.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "rpcshare.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "rpcshare.isSeveral" -}}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled }}true{{ end -}}
{{- end }}

{{- define "rpcshare.require" -}}
{{- if include "rpcshare.isSeveral" . }}
{{- if not .Values.store.url }}{{ fail "replicaCount, autoscaling: several servers need store.url (S3); the embedded store is one server's" }}{{ end }}
{{- if not .Values.secrets.existing }}{{ fail "replicaCount, autoscaling: several servers need secrets.existing, with the same RPCSHARE_TOKEN and RPCSHARE_SHARED_SECRET for all" }}{{ end }}
{{- end }}
{{- if and (include "rpcshare.isSeveral" .) .Values.persistence.existingClaim }}{{ fail "persistence.existingClaim: several servers need a data directory each" }}{{ end }}
{{- if and (or .Values.secretFiles.signingKey .Values.secretFiles.encryptionKeys) (not .Values.secretFiles.existing) }}{{ fail "secretFiles.signingKey, secretFiles.encryptionKeys: need secretFiles.existing" }}{{ end }}
{{- end }}
