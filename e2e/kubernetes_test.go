package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"

	"preforkd/internal/testkit"
)

// manifest reads a file of deploy/kubernetes as what its type says: an unknown field, or one twice,
// is an error.
func manifest[T any](t *testing.T, name, kind string) *T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "deploy", "kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(data, &head); err != nil || head.APIVersion+" "+head.Kind != kind {
		t.Fatalf("%s is %s %s, want %s: %v", name, head.APIVersion, head.Kind, kind, err)
	}
	into := new(T)
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return into
}

// imageEnv returns the variables that the Containerfile sets, and its text.
func imageEnv(t *testing.T) (env map[string]string, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testkit.Root(t), "Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text = string(data)
	_, block, _ := strings.Cut(text, "\nENV ")
	block, _, _ = strings.Cut(block, "\nUSER ")
	env = map[string]string{}
	for field := range strings.FieldsSeq(strings.ReplaceAll(block, "\\\n", " ")) {
		name, value, _ := strings.Cut(field, "=")
		env[name] = value
	}
	if len(env) < 5 {
		t.Fatalf("the Containerfile sets %v", env)
	}
	return env, text
}

// TestKubernetes checks that the manifests agree with each other and with the image.
func TestKubernetes(t *testing.T) {
	deployment := manifest[appsv1.Deployment](t, "deployment.yaml", "apps/v1 Deployment")
	service := manifest[corev1.Service](t, "service.yaml", "v1 Service")
	budget := manifest[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml", "policy/v1 PodDisruptionBudget")
	files, err := os.ReadDir(filepath.Join(testkit.Root(t), "deploy", "kubernetes"))
	if err != nil || len(files) != 6 {
		t.Errorf("%d files, six are looked at, here and in TestKubernetesScaling: %v", len(files), err)
	}

	template := deployment.Spec.Template
	for name, selector := range map[string]map[string]string{
		"deployment": deployment.Spec.Selector.MatchLabels,
		"service":    service.Spec.Selector,
		"budget":     budget.Spec.Selector.MatchLabels,
		"spread":     template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if len(selector) == 0 || !maps.Equal(selector, template.Labels) {
			t.Errorf("%s selects %v, pods have %v", name, selector, template.Labels)
		}
	}
	if len(template.Spec.Containers) != 1 {
		t.Fatalf("%d containers", len(template.Spec.Containers))
	}
	container := template.Spec.Containers[0]
	env, text := imageEnv(t)
	for _, v := range container.Env {
		env[v.Name] = v.Value
	}
	checkPorts(t, container, service, env, text)
	checkSecurity(t, template.Spec, container, text)
	checkMounts(t, template.Spec, container, env)

	stop := time.Duration(0)
	for _, name := range []string{"PREFORKD_DRAIN_DELAY", "PREFORKD_TIMEOUTS_DRAIN"} {
		d, err := time.ParseDuration(env[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		stop += d
	}
	// Two seconds for what follows the drain clock: a worker that overruns it is killed after one.
	if grace := time.Duration(*template.Spec.TerminationGracePeriodSeconds) * time.Second; grace < stop+2*time.Second {
		t.Errorf("killed after %s, draining takes up to %s", grace, stop)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if _, ok := container.Resources.Limits[name]; !ok {
			t.Errorf("without a limit of %s workers are sized from the node", name)
		}
	}
	if *template.Spec.EnableServiceLinks {
		t.Errorf("variables of services would be taken for settings")
	}
}

func checkPorts(t *testing.T, c corev1.Container, s *corev1.Service, env map[string]string, text string) {
	t.Helper()
	ports := map[string]int32{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^EXPOSE .*\b%d\b`, p.ContainerPort)).MatchString(text) {
			t.Errorf("the image does not expose %d", p.ContainerPort)
		}
	}
	for name, variable := range map[string]string{"http": "PREFORKD_LISTEN", "ops": "PREFORKD_OPS_LISTEN"} {
		if want := fmt.Sprintf(":%d", ports[name]); env[variable] != want {
			t.Errorf("%s is %s, want %s", variable, env[variable], want)
		}
	}
	for _, p := range s.Spec.Ports {
		if ports[p.TargetPort.StrVal] == 0 {
			t.Errorf("the service's port %s leads to %s, which the pod has not", p.Name, p.TargetPort.String())
		}
	}
	for name, probe := range map[string]*corev1.Probe{"/readyz": c.ReadinessProbe, "/readyz ": c.StartupProbe, "/livez": c.LivenessProbe} {
		get := probe.HTTPGet
		if get.Port.StrVal != "ops" || get.Path != strings.TrimSpace(name) {
			t.Errorf("a probe asks %s %s, want ops %s", get.Port.String(), get.Path, name)
		}
	}
}

func checkSecurity(t *testing.T, pod corev1.PodSpec, c corev1.Container, text string) {
	t.Helper()
	p, s := pod.SecurityContext, c.SecurityContext
	if !*p.RunAsNonRoot || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		!*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("pod %+v, container %+v", p, s)
	}
	if user := fmt.Sprintf("\nUSER %d:%d\n", *p.RunAsUser, *p.RunAsGroup); !strings.Contains(text, user) {
		t.Errorf("the image has another user than%s", user)
	}
}

// checkMounts: each is of a volume that is there, and the service has all that it needs.
func checkMounts(t *testing.T, pod corev1.PodSpec, c corev1.Container, env map[string]string) {
	t.Helper()
	writable := map[string]bool{}
	for _, v := range pod.Volumes {
		writable[v.Name] = v.EmptyDir != nil
	}
	mounted := map[string]bool{}
	for _, m := range c.VolumeMounts {
		free, ok := writable[m.Name]
		if !ok || free == m.ReadOnly {
			t.Errorf("%s is mounted from %s: there %t, writable %t", m.MountPath, m.Name, ok, free)
		}
		mounted[m.MountPath] = true
	}
	for _, variable := range []string{"PREFORKD_MODELS", "PREFORKD_CACHE_DIR", "RUNTIME_DIRECTORY"} {
		if !mounted[env[variable]] {
			t.Errorf("%s is %s, and nothing is mounted there", variable, env[variable])
		}
	}
	if len(mounted) != len(pod.Volumes) {
		t.Errorf("%d volumes, %d mounts", len(pod.Volumes), len(mounted))
	}
}
