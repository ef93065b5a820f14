package config

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	long := "/" + strings.Repeat("p", 106)
	tests := []struct {
		in   string
		want Address
	}{
		{"127.0.0.1:8000", Address{Network: "tcp", Addr: "127.0.0.1:8000"}},
		{"[::]:8000", Address{Network: "tcp", Addr: "[::]:8000"}},
		{"[fe80::1%eth0]:80", Address{Network: "tcp", Addr: "[fe80::1%eth0]:80"}},
		{":8000", Address{Network: "tcp", Addr: ":8000"}},
		{"localhost:0", Address{Network: "tcp", Addr: "localhost:0"}},
		{"[localhost]:80", Address{Network: "tcp", Addr: "localhost:80"}},
		{"my_host-1.example.com:65535", Address{Network: "tcp", Addr: "my_host-1.example.com:65535"}},
		{"unix:/run/p.sock", Address{Network: "unix", Addr: "/run/p.sock"}},
		{"unix:///run/p.sock", Address{Network: "unix", Addr: "///run/p.sock"}},
		{"unix:" + long, Address{Network: "unix", Addr: long}},
		{"unix:/a:b?", Address{Network: "unix", Addr: "/a:b"}},
		{"unix:/run/p.sock?mode=0660&owner=www-data:www-data", Address{Network: "unix", Addr: "/run/p.sock", Mode: 0o660, Owner: "www-data", Group: "www-data"}},
		{"unix:/p?owner=33&mode=777", Address{Network: "unix", Addr: "/p", Mode: 0o777, Owner: "33"}},
		{"fd:http", Address{Network: "fd", Addr: "http"}},
		{":8443?cert=/c.pem&key=k%20%2c%26%25.pem", Address{Network: "tcp", Addr: ":8443", Cert: "/c.pem", Key: "k ,&%.pem"}},
		{"fd:web?proxy_protocol=true", Address{Network: "fd", Addr: "web", Proxy: true}},
		{"unix:/p?mode=0600&proxy_protocol=true&key=k&cert=c?x=y", Address{Network: "unix", Addr: "/p", Mode: 0o600, Cert: "c?x=y", Key: "k", Proxy: true}},
		{":1?proxy_protocol=false", Address{Network: "tcp", Addr: ":1"}},
	}
	for _, test := range tests {
		got, err := ParseAddress(test.in)
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v", test.in, got, err)
			continue
		}
		if again, err := ParseAddress(got.String()); err != nil || again != got {
			t.Errorf("%s: %s comes back as %+v, %v", test.in, got, again, err)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", "is empty"},
		{":1?cert=c", "has one of cert and key; TLS needs both"},
		{":1?key=k", "has one of cert and key; TLS needs both"},
		{":1?cert=&key=k", `has cert="", which is no path of a file`},
		{":1?cert=%zz&key=k", `has cert="%zz", which is no path of a file`},
		{":1?cert=%00&key=k", `has cert="%00", which is no path of a file`},
		{":1?proxy_protocol", `has proxy_protocol=""; write true or false`},
		{":1?mode=0660", `has the unknown option "mode" (known are cert, key and proxy_protocol)`},
		{"a b:80", "contains a space or a control character"},
		{"a\x00:80", "contains a space or a control character"},
		{"a\xff:80", "contains a space or a control character"},
		{"8000", "is a port without a host; write 127.0.0.1:8000, or :8000 for every interface"},
		{"127.0.0.1", "has no port; write 127.0.0.1:8000"},
		{"[::1]", "has no port; write [::1]:8000"},
		{"::1", "has no port; write [::1]:8000"},
		{"::ffff:1.2.3.4:80", "is an IPv6 address without brackets; write [::ffff:1.2.3.4]:80"},
		{"localhost", "has no port"},
		{"/run/p.sock", "is a path; write unix:/run/p.sock"},
		{"http://localhost:80/", "is a URL (http); leave out the scheme, as in localhost:80"},
		{"tcp:localhost:80", "is not an address"},
		{"localhost:http", `has the port "http", which is not a number from 0 to 65535`},
		{"localhost:", `has the port "", which is not a number from 0 to 65535`},
		{"localhost:65536", `has the port "65536", which is not a number from 0 to 65535`},
		{"localhost:-1", `has the port "-1", which is not a number from 0 to 65535`},
		{"localhost:080", `has the port "080", which is not a number from 0 to 65535`},
		{"[zz::]:80", `has brackets around "zz::", which is not an IPv6 address`},
		{"-a:80", `has the host "-a", which is neither an IP address nor a name`},
		{"127.1:80", `has the host "127.1", which is neither an IP address nor a name`},
		{"1.2.3.256:80", `has the host "1.2.3.256", which is neither an IP address nor a name`},
		{"a/b:80", `has the host "a/b", which is neither an IP address nor a name`},
		{"unix:", "has a relative path; write unix: and a path that begins with /"},
		{"unix:run/p", "has a relative path; write unix: and a path that begins with /"},
		{"unix:@name", "is an abstract socket, which has no permissions; write unix: and a path"},
		{"unix:/run/", "names a directory; write the path of a socket in it"},
		{"unix:/" + strings.Repeat("p", 107), "has a path of 108 bytes; the kernel allows 107"},
		{"unix:/p?mode=0888", `has the mode "0888", which is not an octal number from 1 to 0777`},
		{"unix:/p?mode=01000", `has the mode "01000", which is not an octal number from 1 to 0777`},
		{"unix:/p?mode=0", `has the mode "0", which is not an octal number from 1 to 0777`},
		{"unix:/p?mode=0600&mode=0600", `has the option "mode" twice`},
		{"unix:/p?owner=", `has the owner ""; write owner=USER or owner=USER:GROUP`},
		{"unix:/p?owner=a:", `has the owner "a:"; write owner=USER or owner=USER:GROUP`},
		{"unix:/p?owner=a:b:c", `has the owner "a:b:c"; write owner=USER or owner=USER:GROUP`},
		{"unix:/p?perm=0600", `has the unknown option "perm" (known are mode, owner, cert, key and proxy_protocol)`},
		{"fd:", "needs a name after fd:, of 1 to 255 characters without a colon"},
		{"fd:a:b", "needs a name after fd:, of 1 to 255 characters without a colon"},
		{"fd:" + strings.Repeat("n", 256), "needs a name after fd:, of 1 to 255 characters without a colon"},
	}
	for _, test := range tests {
		got, err := ParseAddress(test.in)
		if err == nil || err.Error() != test.want {
			t.Errorf("%q\ngot  %+v, %v\nwant %s", test.in, got, err, test.want)
		}
	}
}

func TestSameAddress(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{":80", "[::]:80", true},
		{"[::0:1]:80", "[::1]:80", true},
		{"[::ffff:1.2.3.4]:80", "1.2.3.4:80", true},
		{"LocalHost:80", "localhost:80", true},
		{"localhost:80", "127.0.0.1:80", false}, // a name may mean anything
		{"0.0.0.0:80", "[::]:80", false},        // both may be bound with IPV6_V6ONLY
		{":80", ":81", false},
		{"unix:/a//b", "unix:/a/b?mode=0600", true},
		{"unix:/a", "fd:/a", false},
	}
	for _, test := range tests {
		a, err := ParseAddress(test.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseAddress(test.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.same() == b.same(); got != test.want {
			t.Errorf("%s and %s: %v", a, b, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1:8000", "[::]:8000", ":0", "localhost:80", "[fe80::1%eth0]:80", "8000", "::1:80",
		"unix:/run/p.sock?mode=0660&owner=www-data:www-data", "unix:@x", "unix:/p?owner=1&mode=7",
		"fd:http", "http://a:80/", "[a]:1", "[", "?", "unix:/?", "127.1:80", "a%b:1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if a != (Address{}) || err.Error() == "" {
				t.Fatalf("%+v, %q", a, err)
			}
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Fatalf("%q is %+v, which comes back as %+v, %v", s, a, again, err)
		}
		if a.Network == "unix" && len(a.Addr) > maxUnixPath || a.Mode > 0o777 || a.same() == "" {
			t.Fatalf("%q is %+v", s, a)
		}
	})
}
