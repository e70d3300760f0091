{{- define "sandwich.name" -}}
{{- .Release.Name | trunc 28 | trimSuffix "-" -}}
{{- end -}}

{{- define "sandwich.selector" -}}
app.kubernetes.io/name: sandwich
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sandwich.labels" -}}
{{ include "sandwich.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The scheme of the nodes' port. */}}
{{- define "sandwich.scheme" -}}
{{ if .Values.tlsSecret }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}
