package nstest_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"wireguard4netns/internal/nstest"
)

var fetch = nstest.NewFunc("fetch", func(url string) (string, error) {
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
})

type lookupInput struct{ Server, Name string }

var lookup = nstest.NewFunc("lookup", func(in lookupInput) ([]string, error) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", in.Server)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := resolver.LookupHost(ctx, in.Name)
	slices.Sort(addrs)
	return addrs, err
})

type postInput struct {
	URL  string
	Size int
}

var post = nstest.NewFunc("post", func(in postInput) (string, error) {
	resp, err := (&http.Client{Timeout: time.Minute}).Post(in.URL, "application/octet-stream", bytes.NewReader(make([]byte, in.Size)))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
})
