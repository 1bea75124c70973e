package nstest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Services is what a Host offers on all its addresses.
//
//	TCP 7    echo
//	UDP 7    echo
//	TCP 80   HTTP: "/" says Page, "/peer" the asker's address,
//	         "/zero?n=N" N zero bytes; POST answers the number of bytes read
//	UDP 53   DNS: every name has the addresses Answers
type Services struct {
	Page    string
	Answers []netip.Addr
}

// Serve starts the services in the Host, until the end of the test.
func (h *Host) Serve(t testing.TB, s Services) {
	t.Helper()
	h.startRole(t, "services", s)
}

// ServeIperf3 starts `iperf3 -s` in the Host, on its usual port 5201.
func (h *Host) ServeIperf3(t testing.TB) {
	t.Helper()
	Start(t, h.Command("iperf3", "--server"))
	h.WaitListen(t, 5201)
}

func init() { roles["services"] = serveRole }

func serveRole() error {
	var s Services
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		return err
	}
	echo, err := net.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	echoUDP, err := net.ListenPacket("udp", ":7")
	if err != nil {
		return err
	}
	dns, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	go acceptEcho(echo)
	go http.Serve(web, s.web())
	go answer(echoUDP, func(b []byte) ([]byte, error) { return b, nil })
	go answer(dns, s.resolve)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func acceptEcho(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

// answer sends what reply makes of each datagram to its sender.
func answer(conn net.PacketConn, reply func([]byte) ([]byte, error)) {
	buf := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if out, err := reply(buf[:n]); err == nil {
			conn.WriteTo(out, from)
		}
	}
}

func (s Services) web() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, s.Page) })
	mux.HandleFunc("GET /peer", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("GET /zero", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.FormValue("n"), 10, 64)
		io.CopyN(w, zeros{}, n)
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintln(w, n)
	})
	return mux
}

func (s Services) resolve(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	msg := dnsmessage.Message{
		Header: dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true,
			RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	for _, addr := range s.Answers {
		resource := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}}
		switch {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			resource.Body = &dnsmessage.AResource{A: addr.As4()}
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			resource.Body = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		default:
			continue
		}
		msg.Answers = append(msg.Answers, resource)
	}
	return msg.Pack()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
