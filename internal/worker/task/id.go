package task

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
)

// ID names a task: its model, its priority and 26 characters, joined by dots. Clients take it as it
// is. From it follows the subject of its message, so that anybody can find it.
type ID string

const (
	high = "hi"
	low  = "lo"

	nameChars = 26  // of the last part: 130 bits
	maxID     = 240 // characters: subjects and file names have room for it
)

var alphabet = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID returns one of chance, or for a key always the same.
func newID(model string, lowPriority bool, tenant, key string) ID {
	prio := high
	if lowPriority {
		prio = low
	}
	var bits [sha256.Size]byte
	if key == "" {
		_, _ = rand.Read(bits[:]) // never fails
	} else {
		bits = sha256.Sum256(fmt.Appendf(nil, "%q %q %q", tenant, model, key))
	}
	return ID(encode(model) + "." + prio + "." + alphabet.EncodeToString(bits[:])[:nameChars])
}

// ParseID reads what a client sent; false: no task has ever had such an id.
func ParseID(text string) (ID, bool) {
	if len(text) > maxID {
		return "", false
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[1] != high && parts[1] != low || len(parts[2]) != nameChars {
		return "", false
	}
	if strings.Trim(parts[2], "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", false
	}
	model, ok := decode(parts[0])
	if !ok || encode(model) != parts[0] {
		return "", false
	}
	return ID(text), true
}

// Model is the name of the task's model.
func (id ID) Model() string {
	name, _, _ := strings.Cut(string(id), ".")
	model, _ := decode(name)
	return model
}

// encode writes a model's name as a token of subjects, of names of streams and of files: letters,
// digits, - and _ stay, every other byte is = and its two hexadecimal digits.
func encode(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "=%02X", c)
	}
	return b.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// decode reads what encode wrote.
func decode(token string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		switch c := token[i]; {
		case plain(c):
			b.WriteByte(c)
		case c == '=' && i+2 < len(token):
			n, err := strconv.ParseUint(token[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			return "", false
		}
	}
	return b.String(), b.Len() > 0
}
