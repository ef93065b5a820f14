package api

import (
	"errors"
	"strings"
	"testing"

	"preforkd/internal/ipc"
)

// TestControl: what the service says is answered, in the words of the protocol where it has some.
func TestControl(t *testing.T) {
	var asked ipc.ModelOrder
	var err error
	a := newAPI(t, Options{ControlSetting: "explicit", Control: func(o ipc.ModelOrder) error {
		asked = o
		return err
	}})
	c := dial(t, serve(t, a, limits))
	for _, x := range []struct {
		path, body string
		err        error
		order      ipc.ModelOrder
		status     int
		want       string
	}{
		{"m/load", "", nil, ipc.ModelOrder{Name: "m"}, 200, ""},
		{"m/unload", `{"parameters":{"unload_dependents":true}}`, nil, ipc.ModelOrder{Name: "m", Unload: true}, 200, ""},
		{"a%20b/load", `{}`, nil, ipc.ModelOrder{Name: "a b"}, 200, ""},
		{"m/load", `{"parameters":{"config":"{}"}}`, nil, ipc.ModelOrder{}, 403, `parameters: \"config\": files are taken by the admin socket only`},
		{"m/load", `{"parameters":{"file:1/x":"AA=="}}`, nil, ipc.ModelOrder{}, 403, "admin socket only"},
		{"m/load", `{"parameters":1}`, nil, ipc.ModelOrder{}, 400, "body: parameters: number is out of place here"},
		{"m/load", `x`, nil, ipc.ModelOrder{}, 400, "body: "},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitUsage, What: "none"}, ipc.ModelOrder{Name: "m"}, 404, "Request for unknown model: 'm' is not found"},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitRolledBack, What: "it is bad"}, ipc.ModelOrder{Name: "m"}, 400, `{"error":"it is bad"}`},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitConfig, What: "line 3"}, ipc.ModelOrder{Name: "m"}, 400, "line 3"},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitTryAgain, What: "busy"}, ipc.ModelOrder{Name: "m"}, 503, "busy"},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitUnavailable, What: "no room"}, ipc.ModelOrder{Name: "m"}, 503, "no room"},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitPermission, What: "models.control is admin"}, ipc.ModelOrder{Name: "m"}, 403, "models.control is admin"},
		{"m/load", "", &ipc.Failure{Exit: ipc.ExitBug, What: "bug"}, ipc.ModelOrder{Name: "m"}, 500, "bug"},
		{"m/load", "", errors.New("the other side has ended"), ipc.ModelOrder{Name: "m"}, 503, "the other side has ended"},
	} {
		asked, err = ipc.ModelOrder{}, x.err
		c.send(t, "POST /v2/repository/models/"+x.path+" HTTP/1.1\r\nHost: x\r\nContent-Length: "+itoa(len(x.body))+"\r\n\r\n"+x.body)
		status, body, _ := c.answer(t)
		if status != x.status || !strings.Contains(body, x.want) || x.want == "" && body != "" || asked != x.order {
			t.Errorf("%s %s: %d %s, asked %+v; want %d %s, %+v", x.path, x.body, status, body, asked, x.status, x.want, x.order)
		}
	}
}
