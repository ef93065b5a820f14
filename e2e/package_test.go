package e2e

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"preforkd/internal/testkit"
	"preforkd/internal/testkit/box"
)

// shell runs a command of the repository's and returns its output, standard error included.
func shell(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = testkit.Root(t)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustShell(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := shell(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// stage installs the programs into a directory as a package has them.
func stage(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	mustShell(t, []string{"DESTDIR=" + root, "PREFIX=/usr"}, "scripts/install.sh", "install", testkit.PlainPrograms(t))
	return root
}

// pack builds the package of a version; spoil may change its files first.
func pack(t *testing.T, version string, spoil func(root string)) string {
	t.Helper()
	root := stage(t)
	if spoil != nil {
		spoil(root)
	}
	dist := filepath.Dir(root)
	if out, err := shell(t, nil, "scripts/deb.sh", version, dist); err != nil {
		if strings.Contains(out, "goreleaser/nfpm") && (strings.Contains(out, "dial tcp") || strings.Contains(out, "reading http") || strings.Contains(out, "module lookup disabled")) {
			t.Skipf("skipped: nfpm cannot be fetched: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dist, "*.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("packages in %s: %v, %v", dist, files, err)
	}
	return files[0]
}

func sum(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// TestPackage looks at what the Debian package is made of.
func TestPackage(t *testing.T) {
	deb := pack(t, "v1.2.3-rc1", nil)
	if sum(t, deb) != sum(t, pack(t, "v1.2.3-rc1", nil)) {
		t.Error("the second package of the same files differs")
	}
	info := mustShell(t, nil, "dpkg-deb", "-I", deb)
	for _, line := range []string{"Package: preforkd", "Version: 1.2.3~rc1", "Depends: libc6 (>= 2."} {
		if !strings.Contains(info, "\n "+line) {
			t.Errorf("no %q in\n%s", line, info)
		}
	}
	list := mustShell(t, nil, "dpkg-deb", "-c", deb)
	for _, want := range []string{
		`-rwxr-xr-x root/root .* \./usr/bin/preforkd`,
		`-rwxr-xr-x root/root .* \./usr/bin/preforkd-anchor`,
		`-rwxr-xr-x root/root .* \./usr/bin/preforkd-worker`,
		`-rwxr-xr-x root/root .* \./usr/bin/preforkd-bench`,
		`-rwxr-xr-x root/root .* \./usr/bin/preforkd-broker`,
		`-rw-r--r-- root/root .* \./usr/lib/preforkd/libonnxruntime\.so\.1`,
		`-rw-r--r-- root/root .* \./etc/preforkd/preforkd\.yaml`,
		`-rw-r--r-- root/root .* \./usr/share/doc/preforkd/NOTICE`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(list) {
			t.Errorf("no %s in\n%s", want, list)
		}
	}
	control := t.TempDir()
	mustShell(t, nil, "dpkg-deb", "-e", deb, control)
	if text, err := os.ReadFile(filepath.Join(control, "conffiles")); err != nil || string(text) != "/etc/preforkd/preforkd.yaml\n" {
		t.Errorf("conffiles: %q, %v", text, err)
	}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		mustShell(t, nil, "sh", "-n", filepath.Join(control, name))
	}
}

// TestPackageConfiguration: what the package installs as its configuration is valid, and says
// where models are in the words of the unit.
func TestPackageConfiguration(t *testing.T) {
	preforkd := filepath.Join(testkit.PlainPrograms(t), "preforkd")
	file := filepath.Join("packaging", "preforkd.yaml")
	mustShell(t, nil, preforkd, "config", "check", "-c", file)
	settings := mustShell(t, nil, preforkd, "config", "print", "-c", file)
	if !strings.Contains(settings, "/var/lib/preforkd/models") {
		t.Errorf("the models are elsewhere:\n%s", settings)
	}
}

// TestDebianVersions: dpkg orders the versions as the commits are.
func TestDebianVersions(t *testing.T) {
	last := ""
	for _, v := range []struct{ described, want string }{
		{"1a2b3c4", "0~20260304050607.1a2b3c4"},
		{"v1.2.0-rc1", "1.2.0~rc1"},
		{"v1.2.0-rc1-3-gabcdef0", "1.2.0~rc1+3.gabcdef0"},
		{"v1.2.0", "1.2.0"},
		{"v1.2.0-4-gabcdef0", "1.2.0+4.gabcdef0"},
		{"v1.2.0-4-gabcdef0-dirty", "1.2.0+4.gabcdef0+dirty"},
		{"v1.10.0", "1.10.0"},
	} {
		got := strings.TrimSpace(mustShell(t, nil, "scripts/deb-version.sh", v.described, "20260304050607"))
		if got != v.want {
			t.Errorf("%s is %s, want %s", v.described, got, v.want)
		}
		if last != "" {
			if out, err := shell(t, nil, "dpkg", "--compare-versions", last, "lt", got); err != nil || out != "" {
				t.Errorf("%s does not come before %s: %v %s", last, got, err, out)
			}
		}
		last = got
	}
}

// TestMakeInstall installs into an empty directory, runs what is there, and takes it away.
func TestMakeInstall(t *testing.T) {
	root, programs := t.TempDir(), testkit.PlainPrograms(t)
	env := []string{"DESTDIR=" + root, "PREFIX=/opt/p"}
	mustShell(t, env, "scripts/install.sh", "install", programs)
	models := filepath.Join(testkit.Root(t), "models")
	cmd := testkit.Options{Models: models}.Command(t)
	cmd.Path = filepath.Join(root, "opt/p/bin/preforkd")
	cmd.Args[0] = cmd.Path
	cmd.Env = append(cmd.Env, "ONNXRUNTIME=")
	testkit.LaunchCommand(t, cmd).Await("READY=1") // so the library was found

	units, err := filepath.Glob(filepath.Join(testkit.Root(t), "systemd", "*.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(filepath.Join(root, "opt/p/lib/systemd/system", filepath.Base(unit)))
		if err != nil || !strings.Contains(string(text), "ExecStart=/opt/p/bin/preforkd ") || strings.Contains(string(text), "/usr/bin/preforkd") {
			t.Errorf("%v\n%s", err, text)
		}
	}

	config := filepath.Join(root, "etc/preforkd/preforkd.yaml")
	if err := os.WriteFile(config, []byte("workers: 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustShell(t, env, "scripts/install.sh", "install", programs)
	out := mustShell(t, env, "scripts/install.sh", "uninstall", programs)
	left := mustShell(t, nil, "find", root, "-type", "f")
	if left != config+"\n" || !strings.Contains(out, "/etc/preforkd is not empty and stays") {
		t.Errorf("left: %s\n%s", left, out)
	}
	if text, err := os.ReadFile(config); err != nil || string(text) != "workers: 3\n" {
		t.Errorf("the configuration is %q, %v", text, err)
	}
}

// lifeOfPackage installs, upgrades, breaks and removes the package under a running service.
const lifeOfPackage = `
must() { "$@" >/tmp/out 2>&1 || { echo "$*: exit status $?"; cat /tmp/out; journalctl -u preforkd | tail -20; exit 1; }; }
has() { grep -q "$1" /tmp/out || { echo "no '$1' in:"; cat /tmp/out; exit 1; }; }
alone() { # one client on one connection: the status of each answer, and the connections made
  curl -s -o /dev/null --rate 500/s -w '%{http_code} %{num_connects}\n' -d "$(cat /srv/sample)" 'http://127.0.0.1:8000/predict/digits?[1-100000]' >/tmp/alone; }
each() { # one connection for each request
  while [ -e /tmp/on ]; do sleep 0.005; curl -s -o /dev/null -w '%{http_code}\n' -d "$(cat /srv/sample)" http://127.0.0.1:8000/predict/digits; done >/tmp/each; }
main() { systemctl show --property=MainPID --value preforkd; }
supervisor() { pgrep -x preforkd; }
generation() { preforkd generations --admin /run/preforkd/admin.sock | awk '$NF == "serves" { print $1 }'; }

must dpkg -i /srv/1.deb
has 'systemctl enable --now preforkd'
systemctl is-active -q preforkd && { echo "it was started without a model"; exit 1; }
mkdir -p /var/lib/preforkd
cp -r /srv/models /var/lib/preforkd/models
must systemctl enable --now preforkd
main=$(main); first=$(supervisor)
touch /tmp/on; alone & alone=$!; each & each=$!
until [ -s /tmp/alone ] && [ -s /tmp/each ]; do sleep 0.1; done

must dpkg -i /srv/2.deb
has 'preforkd.service serves with the new version: generation 2 serves'
[ "$(main)" = "$main" ] && [ "$(supervisor)" != "$first" ] || { echo "main process $main, now $(main); supervisor $first, now $(supervisor)"; exit 1; }

# A setting that is wrong: the package is installed, and not configured until that is put right.
cp /etc/preforkd/preforkd.yaml /tmp/good
echo 'workers: several' >>/etc/preforkd/preforkd.yaml
dpkg -i /srv/1.deb >/tmp/out 2>&1 && { echo "a wrong setting is no failure"; cat /tmp/out; exit 1; }
has 'goes on with the old version'; has 'preforkd.yaml:.*workers'; has 'dpkg --configure preforkd'
[ "$(generation)" = 2 ] || { echo "generation $(generation)"; exit 1; }
cp /tmp/good /etc/preforkd/preforkd.yaml
must dpkg --configure preforkd
has 'generation 3 serves'

# A program that does not work: the same, and the way back is to install the one before.
dpkg -i /srv/bad.deb >/tmp/out 2>&1 && { echo "a bad program is no failure"; cat /tmp/out; exit 1; }
has 'exit status 4'; has 'half a package'
must dpkg -i /srv/2.deb
has 'generation [0-9]* serves'

rm /tmp/on; wait $each; kill $alone; wait $alone
echo "each: $(sort /tmp/each | uniq -c | xargs); alone: $(sed '$d' /tmp/alone | sort | uniq -c | xargs)"

must dpkg -r preforkd
[ -z "$(pgrep preforkd)" ] || { echo "it still runs"; exit 1; }
[ -e /etc/preforkd/preforkd.yaml ] && [ -e /var/cache/private/preforkd/models ] || { echo "a removal takes too much along"; exit 1; }
must dpkg -P preforkd
has 'holds models and stays'
left=$(find /usr /etc /var/cache -name '*preforkd*')
[ -z "$left" ] || { echo "left: $left"; exit 1; }
`

// TestPackageUnderSystemd: who upgrades the package upgrades the running service, and no client
// notices; who installs a bad one is told so, and the service goes on.
func TestPackageUnderSystemd(t *testing.T) {
	half := func(root string) {
		if err := os.WriteFile(filepath.Join(root, "usr/bin/preforkd-worker"), []byte("#!/bin/sh\necho half a package; exit 7\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sample"), []byte(body(sample)), 0o644); err != nil {
		t.Fatal(err)
	}
	out := box.Systemd(t, box.Options{Bind: map[string]string{
		"/srv/1.deb": pack(t, "v1.0.0", nil), "/srv/2.deb": pack(t, "v1.1.0", nil), "/srv/bad.deb": pack(t, "v1.2.0", half),
		"/srv/models": filepath.Join(testkit.Root(t), "models"),
		"/srv/sample": filepath.Join(dir, "sample"),
	}}, lifeOfPackage).OK(t)
	tableOf(t).note("package upgraded well and badly under load: %s", strings.TrimSpace(out))
	if !regexp.MustCompile(`each: [1-9]\d* 200; alone: ([1-9]\d* 200 0 )?1 200 1( [1-9]\d* 200 0)?\n`).MatchString(out) {
		t.Error("a request failed, or a connection was closed")
	}
}
