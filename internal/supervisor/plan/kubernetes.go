package plan

import (
	"fmt"
	"io"
	"math"
)

// Kubernetes writes the part of a Deployment that r.Best asks for, to be applied over the one in
// deploy/kubernetes: requests equal limits, so that the kubelet neither takes the memory away
// nor throttles what was planned with.
func (r Report) Kubernetes(out io.Writer) error {
	l := r.Best
	if l == nil {
		return fmt.Errorf("no layout fits: %s", r.Reason)
	}
	replicas := l.Pods
	if r.Pods != nil && r.Pods.Safe > 0 {
		replicas = r.Pods.Safe
	}
	cpu := int(math.Floor(r.Input.podCores(*l) * 1000))
	memory := r.Input.limit(*l) >> 20
	note := ""
	if text := r.Input.prepares(*l); text != "" {
		note = "# " + text + "\n"
	}
	_, err := fmt.Fprintf(out, `# preforkd plan: %s of %s; %s.
%sapiVersion: apps/v1
kind: Deployment
metadata:
  name: preforkd
spec:
  replicas: %d
  template:
    spec:
      containers:
        - name: preforkd
          env:
            - name: PREFORKD_WORKERS
              value: "%d"
          resources:
            requests:
              cpu: %dm
              memory: %dMi
            limits:
              cpu: %dm
              memory: %dMi
`, count(l.Pods, "pod"), count(l.Workers, "worker"), r.Reason, note, replicas, l.Workers, cpu, memory, cpu, memory)
	return err
}
