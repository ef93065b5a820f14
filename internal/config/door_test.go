package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestEntriesOfListen(t *testing.T) {
	secure := Address{Network: "tcp", Addr: ":8443", Cert: "/c d.pem", Key: "/k.pem"}
	proxied := Address{Network: "unix", Addr: "/a", Mode: 0o660, Proxy: true}
	for _, c := range []struct {
		listen string
		want   []Address
		err    string // the first line, from the key on
	}{
		{`[":1", {address: ":8443", tls: {cert: "/c d.pem", key: /k.pem}}]`, []Address{{Network: "tcp", Addr: ":1"}, secure}, ""},
		{`[{address: ":8443?cert=/c%20d.pem&key=/k.pem", tls: {}}]`, []Address{secure}, ""},
		{`[{address: "unix:/a?mode=0660", proxy_protocol: true}]`, []Address{proxied}, ""},
		{`[{proxy_protocol: true}]`, nil, "listen[0].address: is missing; write HOST:PORT, unix:/PATH or fd:NAME"},
		{`[{address: ":1", tls: {cert: c}}]`, nil, "listen[0].tls.key: is missing; write the path of the key of tls.cert"},
		{`[{address: ":1", tls: {key: c}}]`, nil, "listen[0].tls.cert: is missing; write the path of the certificate that tls.key belongs to"},
		{`[{address: ":1", tls: c}]`, nil, "listen[0].tls: is text; write settings below it, indented"},
		{`[{address: ":1", tsl: {}}]`, nil, "listen[0].tsl: unknown key; did you mean tls?"},
		{`[{address: ":x"}]`, nil, `listen[0].address: ":x" has the port "x", which is not a number from 0 to 65535; write HOST:PORT, unix:/PATH or fd:NAME`},
		{`[{address: ":1", proxy_protocol: true}]`, nil, `listen[0]: ":1" has proxy_protocol, and nobody is trusted to speak it; name the proxies in http.trusted_proxies`},
	} {
		text := "listen: " + c.listen + "\n"
		if !strings.Contains(c.err, "nobody is trusted") {
			text += "http: {trusted_proxies: [unix]}\n"
		}
		l, err := Load(Sources{File: write(t, text)})
		if c.err != "" {
			if first, _, _ := strings.Cut(said(err), "\n"); !strings.HasSuffix(first, ": "+c.err) {
				t.Errorf("%s: %s", c.listen, said(err))
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(l.Config.Listen, c.want) {
			t.Errorf("%s: %+v, %v", c.listen, l, err)
			continue
		}
		var b strings.Builder
		if err := l.Print(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Load(Sources{File: write(t, b.String())})
		if err != nil || !reflect.DeepEqual(again.Config, l.Config) {
			t.Errorf("%s is printed so that it is read as %+v, %v", c.listen, again, err)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	l, err := Load(Sources{Env: []string{"PREFORKD_HTTP_TRUSTED_PROXIES=10.0.0.0/8, 192.0.2.1,::1,fd00::/8,unix"}})
	if want := []Proxy{"10.0.0.0/8", "192.0.2.1/32", "::1/128", "fd00::/8", "unix"}; err != nil || !reflect.DeepEqual(l.Config.HTTP.TrustedProxies, want) {
		t.Errorf("%+v, %v", l, err)
	}
	for text, want := range map[string]string{
		"all": "is no network", "10.0.0.1/8": "has bits beyond its length; write 10.0.0.0/8", "10.0.0.0/33": "is no network",
		"::ffff:1.2.3.4": "as IPv6 has it", "fe80::1%eth0": "is no network", "": "is no network",
	} {
		var p Proxy
		if err := p.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestOpenDoor: only what other machines reach, and what asks for no token, is said.
func TestOpenDoor(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"", ""},
		{"listen: [localhost:1, '[::1]:1', 'unix:/a', 127.8.9.1:1]\n", ""},
		{"listen: [127.0.0.1:1, :2, 10.1.2.3:4]\n", ":2, 10.1.2.3:4: other machines may connect, and no token is asked for paths of the classes infer, tasks, control, docs: whoever connects may use them; set auth.infer, auth.tasks, auth.control, auth.docs"},
		{"listen: [':2']\nauth: {infer: a, docs: b}\n", ":2: other machines may connect, and no token is asked for paths of the classes tasks, control: whoever connects may use them; set auth.tasks, auth.control"},
		{"listen: [':2']\nauth: {infer: a, docs: a, tasks: a, control: a}\n", ""},
		{"worker: {command: [python3]}\nlisten: [':2']\n", ""}, // whose affair that is
		{"pools: {web: {listen: ['[::]:2']}}\n", "[::]:2: other machines may connect, and no token is asked for paths of the classes infer, tasks, control, docs: whoever connects may use them; set auth.infer, auth.tasks, auth.control, auth.docs"},
	} {
		l, err := Load(Sources{File: write(t, c.file)})
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if got := strings.Join(l.Warnings, "\n"); got != c.want {
			t.Errorf("%s: %s", c.file, got)
		}
	}
	_, err := Load(Sources{File: write(t, "worker: {command: [python3]}\nlisten: [{address: ':1', tls: {cert: c, key: k}}]\n")})
	if err == nil || !strings.Contains(err.Error(), "would have to speak itself; remove tls") {
		t.Errorf("%v", err)
	}
}

func TestExampleOfADoor(t *testing.T) {
	l, err := Load(Sources{File: "../../configs/door.yaml", Explicit: true})
	if err != nil || len(l.Warnings) > 0 || l.Config.Listen[1].Key != "/etc/preforkd/tls/key.pem" || !l.Config.Listen[1].Proxy || len(l.Config.Auth.Files()) != 4 {
		t.Errorf("%+v, %v", l, err)
	}
}
