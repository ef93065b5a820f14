package api

import "bytes"

// locateV1 finds the endpoint of a path below /v1: models, or
// models/NAME[/versions/VERSION|/labels/LABEL][:VERB|/metadata].
func locateV1(parts [][]byte) target {
	if len(parts) < 2 || string(parts[0]) != "v1" || string(parts[1]) != "models" {
		return target{}
	}
	parts = parts[2:]
	if len(parts) == 0 {
		return target{endpoint: v1Models}
	}
	t := target{endpoint: v1Model, model: parts[0]}
	last, rest := &t.model, parts[1:]
	if len(rest) >= 2 {
		switch string(rest[0]) {
		case "versions":
			t.version, last, rest = rest[1], &t.version, rest[2:]
		case "labels":
			t.label, last, rest = rest[1], &t.label, rest[2:]
		}
	}
	switch {
	case len(rest) == 1 && string(rest[0]) == "metadata":
		t.endpoint = v1Metadata
		return t
	case len(rest) > 0:
		return target{}
	}
	if colon := bytes.LastIndexByte(*last, ':'); colon > 0 {
		if e := verb((*last)[colon+1:]); e != nowhere {
			t.endpoint, t.verb, *last = e, (*last)[colon+1:], (*last)[:colon]
		}
	}
	return t
}

// verb is what may stand behind the colon. A colon before anything else is part of a name.
func verb(name []byte) endpoint {
	switch string(name) {
	case "predict":
		return v1Predict
	case "classify", "regress", "explain":
		return v1Refused
	}
	return nowhere
}
