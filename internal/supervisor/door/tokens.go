package door

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"preforkd/internal/ipc"
)

// maxFile is far more than any file of tokens or certificates has.
const maxFile = 1 << 20

// minToken is how short a token may be: 16 random letters are beyond guessing, and what is
// shorter is seldom random.
const minToken = 16

// Tokens reads the files of tokens, by class: one token a line; empty lines, and those that begin
// with #, are none. The error is an *ipc.Failure that says which setting is meant.
func Tokens(files map[string]string) (ipc.Tokens, error) {
	tokens := ipc.Tokens{}
	for _, class := range []string{ipc.ClassInfer, ipc.ClassTasks, ipc.ClassControl, ipc.ClassDocs} {
		path, ok := files[class]
		if !ok {
			continue
		}
		digests, err := readTokens(path)
		if err != nil {
			return nil, failure("auth."+class, path, err)
		}
		tokens[class] = digests
	}
	return tokens, nil
}

func readTokens(path string) (digests [][]byte, err error) {
	data, err := read(path, true)
	if err != nil {
		return nil, err
	}
	number := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		switch {
		case bytes.ContainsFunc(line, func(r rune) bool { return !tokenRune(r) }):
			return nil, fmt.Errorf("line %d has characters that no token has; write letters, digits and -._~+/=", number)
		case len(line) < minToken:
			return nil, fmt.Errorf("the token in line %d has %d characters, which can be guessed; write at least %d, as openssl rand -hex 32 prints them", number, len(line), minToken)
		}
		digest := sha256.Sum256(line)
		digests = append(digests, digest[:])
	}
	if len(digests) == 0 {
		return nil, errors.New("holds no token; write one a line, as openssl rand -hex 32 prints them")
	}
	return digests, nil
}

// tokenRune tells whether r may be part of a token: b64token of RFC 6750, section 2.1.
func tokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || bytes.ContainsRune([]byte("-._~+/="), r)
}

// read reads a file; a secret one may be nobody's to read, and nobody's to write, but its
// owner's and for reading its group's.
func read(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: nothing to lose
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, errors.New("is a directory; name a file in it")
	case secret && st.Mode().Perm()&0o027 != 0:
		return nil, fmt.Errorf("has mode %04o, so that others may read or change it; chmod 0640, or 0600", st.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, errors.New("is larger than 1 MiB; name another file")
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("is empty; it may be about to be written")
	}
	return data, nil
}

// failure says which setting a file is of, and ends with what to do.
func failure(key, path string, err error) error {
	f := &ipc.Failure{Exit: ipc.ExitConfig, Try: "correct the file, or " + key, Err: err}
	what := err
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		what = e.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.Exit, f.Try = ipc.ExitPermission, "let the user that starts the service read it; its workers need not"
	case errors.Is(err, fs.ErrNotExist):
		f.Try = "write the file, or correct " + key
	}
	f.What = fmt.Sprintf("%s: %s: %v", key, path, what)
	return f
}
