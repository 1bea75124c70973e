package metrics

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// What who asks may take of the process that holds the keys.
const (
	maxCallers = 8
	maxHeader  = 8 << 10
	askTime    = 5 * time.Second
	idleTime   = time.Minute
)

// Server answers GET /metrics.
type Server struct {
	http    http.Server
	serving sync.WaitGroup
}

// Serve begins to answer at an address with what look finds. The context of look
// ends with who asked.
func Serve(at Address, look func(context.Context) Tunnel) (*Server, error) {
	l, err := at.listen()
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	s := new(Server)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		t := look(r.Context())
		w.Header().Set("Content-Type", ContentType)
		t.WriteTo(w)
	})
	s.http = http.Server{
		Handler: mux, ReadTimeout: askTime, WriteTimeout: 2 * askTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
	}
	s.serving.Go(func() { s.http.Serve(netutil.LimitListener(l, maxCallers)) })
	return s, nil
}

// Close ends the answers and gives the address back.
func (s *Server) Close() error {
	err := s.http.Close()
	s.serving.Wait()
	return err
}
