package load

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Get returns a GET request for path. headers are whole lines such as "Accept: */*".
func Get(path string, headers ...string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: preforkd\r\n" + lines(headers) + "\r\n")
}

// Post returns a POST request to path with body. headers are whole lines such as
// "Accept: */*".
func Post(path, contentType string, body []byte, headers ...string) []byte {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: preforkd\r\nContent-Type: %s\r\nContent-Length: %s\r\n%s\r\n",
		path, contentType, strconv.Itoa(len(body)), lines(headers))
	return append([]byte(head), body...)
}

func lines(headers []string) string {
	if len(headers) == 0 {
		return ""
	}
	return strings.Join(headers, "\r\n") + "\r\n"
}

// endOfHead returns where request's header section ends, before the empty line's CRLF;
// -1 if it does not.
func endOfHead(request []byte) int {
	i := bytes.Index(request, []byte("\r\n\r\n"))
	if i < 0 {
		return -1
	}
	return i + 2
}

// sayClose appends request to dst with Connection: close, unless it says something
// about its connection already.
func sayClose(dst, request []byte) []byte {
	end := endOfHead(request)
	if end < 0 || bytes.Contains(bytes.ToLower(request[:end]), []byte("\r\nconnection:")) {
		return append(dst, request...)
	}
	dst = append(dst, request[:end]...)
	dst = append(dst, "Connection: close\r\n"...)
	return append(dst, request[end:]...)
}
