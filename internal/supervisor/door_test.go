package supervisor

import (
	"testing"

	"preforkd/internal/config"
	"preforkd/internal/ipc"
	"preforkd/internal/ipc/activation"
)

// TestNoDoorNoWorker: a generation whose tokens or certificates are gone has no manifest.
func TestNoDoorNoWorker(t *testing.T) {
	secure := config.Address{Network: "tcp", Addr: ":1", Cert: "c", Key: "k"}
	tokens := ipc.Tokens{ipc.ClassInfer: {make([]byte, 32)}}
	certificates := map[string]ipc.Certificate{secure.String(): {}}
	for _, c := range []struct {
		auth config.Auth
		door ipc.Door
		ok   bool
	}{
		{config.Auth{Infer: "i"}, ipc.Door{Tokens: tokens, Certificates: certificates}, true},
		{config.Auth{}, ipc.Door{Certificates: certificates}, true},
		{config.Auth{Infer: "i"}, ipc.Door{Certificates: certificates}, false},
		{config.Auth{Infer: "i", Docs: "d"}, ipc.Door{Tokens: tokens, Certificates: certificates}, false},
		{config.Auth{Infer: "i"}, ipc.Door{Tokens: tokens}, false},
	} {
		g := &generation{cfg: &config.Config{Auth: c.auth}, door: c.door}
		p := &pool{gen: g, cfg: g.cfg, sockets: []boundSocket{{Socket: &activation.Socket{}, from: secure}}, manifest: -1}
		err := p.seal()
		activation.Close(p.manifest)
		if (err == nil) != c.ok {
			t.Errorf("%+v with %d tokens, %d certificates: %v", c.auth, len(c.door.Tokens), len(c.door.Certificates), err)
		}
	}
}

// TestSeeds: sessions go on as long as the certificates are the same.
func TestSeeds(t *testing.T) {
	next := func(key string, old *generation) *generation {
		g := &generation{door: ipc.Door{Certificates: map[string]ipc.Certificate{"a": {Key: []byte(key)}}}}
		if err := g.reseed(old); err != nil {
			t.Fatal(err)
		}
		return g
	}
	first := next("x", nil)
	if len(first.door.Seed) != seedBytes || string(next("x", first).door.Seed) != string(first.door.Seed) || string(next("y", first).door.Seed) == string(first.door.Seed) {
		t.Error("seeds do not follow the certificates")
	}
}
