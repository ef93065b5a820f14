package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"preforkd/internal/testkit"
)

// scaledObject is KEDA's, as its documentation has it (keda.sh, "ScaledObject specification" and
// "Prometheus"), as far as it is used here.
type scaledObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ScaleTargetRef struct {
			APIVersion string `json:"apiVersion,omitempty"`
			Kind       string `json:"kind,omitempty"`
			Name       string `json:"name"`
		} `json:"scaleTargetRef"`
		PollingInterval *int32 `json:"pollingInterval,omitempty"`
		CooldownPeriod  *int32 `json:"cooldownPeriod,omitempty"`
		MinReplicaCount *int32 `json:"minReplicaCount,omitempty"`
		MaxReplicaCount *int32 `json:"maxReplicaCount,omitempty"`
		Triggers        []struct {
			Type     string `json:"type"`
			Metadata struct {
				ServerAddress       string `json:"serverAddress"`
				Query               string `json:"query"`
				Threshold           string `json:"threshold"`
				ActivationThreshold string `json:"activationThreshold,omitempty"`
			} `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

var metricName = regexp.MustCompile(`preforkd_\w+`)

// TestKubernetesScaling checks that what scales asks for metrics that there are, and scales what there
// is.
func TestKubernetesScaling(t *testing.T) {
	served := manifest[appsv1.Deployment](t, "deployment.yaml", "apps/v1 Deployment")
	tasks := manifest[appsv1.Deployment](t, "tasks.yaml", "apps/v1 Deployment")
	hpa := manifest[autoscalingv2.HorizontalPodAutoscaler](t, "hpa.yaml", "autoscaling/v2 HorizontalPodAutoscaler")
	keda := manifest[scaledObject](t, "scaledobject.yaml", "keda.sh/v1alpha1 ScaledObject")
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	if hpa.Spec.ScaleTargetRef.Name != served.Name || hpa.Spec.ScaleTargetRef.Kind != "Deployment" || *hpa.Spec.MinReplicas < *served.Spec.Replicas {
		t.Errorf("the HPA scales %+v", hpa.Spec.ScaleTargetRef)
	}
	if keda.Spec.ScaleTargetRef.Name != tasks.Name || tasks.Spec.Replicas != nil {
		t.Errorf("KEDA scales %+v, of %s", keda.Spec.ScaleTargetRef, tasks.Name)
	}
	var asked []string
	cpu := false
	for _, m := range hpa.Spec.Metrics {
		if m.Resource != nil {
			cpu = cpu || m.Resource.Name == "cpu"
			if m.Resource.Name == "memory" {
				t.Error("the HPA scales on memory")
			}
		}
		if m.Pods != nil {
			asked = append(asked, m.Pods.Metric.Name)
		}
	}
	for _, trigger := range keda.Spec.Triggers {
		asked = append(asked, metricName.FindAllString(trigger.Metadata.Query, -1)...)
	}
	if !cpu || len(asked) != 4 {
		t.Errorf("they look at %v, and the CPU: %v", asked, cpu)
	}
	for _, name := range asked {
		if !strings.Contains(string(page), "`"+name) {
			t.Errorf("docs/operations.md has no metric %s", name)
		}
	}
	settings := map[string]string{}
	for _, v := range tasks.Spec.Template.Spec.Containers[0].Env {
		settings[v.Name] = v.Value
	}
	if settings["PREFORKD_TASKS_ONLY"] != "true" || settings["PREFORKD_TASKS_URL"] == "" {
		t.Errorf("%v", settings)
	}
	var vars []string
	for name, value := range settings {
		vars = append(vars, name+"="+value)
	}
	out, code := checked(t, vars)
	if code != 0 {
		t.Errorf("preforkd config check: %s", out)
	}
}

// checked runs preforkd config check with variables.
func checked(t *testing.T, vars []string) (out string, status int) {
	t.Helper()
	return run(t, "env", append(vars, filepath.Join(testkit.Programs(t), "preforkd"), "config", "check")...)
}
