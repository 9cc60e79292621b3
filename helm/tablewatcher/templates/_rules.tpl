{{/* What the operator does in a namespace that it serves, call by call; docs/kubernetes.md says what each is for. */}}
{{- define "tablewatcher.rules" -}}
- apiGroups: [tablewatcher.io]
  resources: [tablewatchers]
  verbs: [list, watch, patch]
- apiGroups: [tablewatcher.io]
  resources: [tablewatchers/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* Only to learn the name of this installation where none is given. */}}
{{- define "tablewatcher.instanceRule" -}}
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end }}

{{- define "tablewatcher.subjects" -}}
- kind: ServiceAccount
  name: {{ include "tablewatcher.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
