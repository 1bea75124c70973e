package inside

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// What the supervisor (S) and this process (I) say to each other, a line each,
// on a connected stream or seqpacket socket; a line is sent in one write.
//
//	S → I  Config as JSON     what to prepare; once
//	I → S  note TEXT          the app will miss something; any number
//	I → S  etc N              descriptor N is the layer that Rewrite takes
//	I → S  ok                 prepared: S opens /proc/PID/ns/* and fd/N, then closes
//	I → S  error TEXT         not prepared: S closes
//	end of file, either way   I exits at once, whatever it is doing; S, when it
//	                          comes before ok or error, takes it as an error
const (
	lineNote  = "note "
	lineEtc   = "etc "
	lineOK    = "ok"
	lineError = "error "
)

// maxMessage bounds all that is sent one way: a seqpacket that is longer than
// the reader's buffer would be cut.
const maxMessage = 64 << 10

// Main is the role: it reads a Config from conn, does Prepare, answers, and
// waits for the end of conn. It returns the exit code of the process, and
// returns early, with Prepare perhaps still at work, when conn ends: the
// process must exit then, so that nothing is left of its namespaces.
func Main(conn *os.File) int {
	in := bufio.NewReaderSize(conn, maxMessage)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return 1
	}
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(end)
	}()
	reply := make(chan string, 1)
	go func() { reply <- answer(line) }()
	select {
	case <-end:
		return 1
	case text := <-reply:
		if _, err := io.WriteString(conn, text); err != nil {
			return 1
		}
	}
	<-end
	return 0
}

func answer(line []byte) string {
	var cfg Config
	if err := json.Unmarshal(line, &cfg); err != nil {
		return lineError + oneLine(fmt.Errorf("read config: %w", err).Error()) + "\n"
	}
	layer, notes, err := Prepare(cfg)
	var b strings.Builder
	if layer != nil {
		fmt.Fprintf(&b, "%s%d\n", lineEtc, layer.Fd()) // it stays open until the process ends
	}
	for _, note := range notes {
		b.WriteString(lineNote + oneLine(note) + "\n")
	}
	if err != nil {
		b.WriteString(lineError + oneLine(err.Error()) + "\n")
	} else {
		b.WriteString(lineOK + "\n")
	}
	return b.String()
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// Ask sends cfg, on the supervisor's end of the socket, and waits for the
// answer: the number that the layer for Rewrite has in the process (-1: none),
// notes for the user, and what Prepare returned. After it the caller opens the
// namespaces and the layer by the process's /proc entry and closes conn.
func Ask(conn io.ReadWriter, cfg Config) (layer int, notes []string, err error) {
	layer = -1
	text, err := json.Marshal(cfg)
	if err != nil {
		return layer, nil, fmt.Errorf("write config: %w", err)
	}
	if len(text) >= maxMessage {
		return layer, nil, fmt.Errorf("write config: %d bytes are over the limit of %d", len(text), maxMessage)
	}
	if _, err := conn.Write(append(text, '\n')); err != nil {
		return layer, nil, fmt.Errorf("write config: %w", err)
	}
	in := bufio.NewReaderSize(conn, maxMessage)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return layer, notes, fmt.Errorf("prepare mounts: process ended without an answer: %w", err)
		}
		line = strings.TrimSuffix(line, "\n")
		if note, ok := strings.CutPrefix(line, lineNote); ok {
			notes = append(notes, note)
		} else if number, ok := strings.CutPrefix(line, lineEtc); ok {
			if layer, err = strconv.Atoi(number); err != nil {
				return -1, notes, fmt.Errorf("prepare mounts: unknown answer %q", line)
			}
		} else if cause, ok := strings.CutPrefix(line, lineError); ok {
			return layer, notes, fmt.Errorf("prepare mounts: %w", errors.New(cause))
		} else if line == lineOK {
			return layer, notes, nil
		} else {
			return layer, notes, fmt.Errorf("prepare mounts: unknown answer %q", line)
		}
	}
}
