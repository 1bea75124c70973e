package engine

import (
	"testing"

	"wireguard4netns/internal/nstest"
	"wireguard4netns/internal/sandbox"
	"wireguard4netns/internal/uapi"
)

// BenchmarkStart is from the call to an engine that is configured.
func BenchmarkStart(b *testing.B) {
	for _, level := range []sandbox.Level{sandbox.None, sandbox.Auto} {
		b.Run(level.String(), func(b *testing.B) {
			tun := openTUN(b, nstest.NewHost(b), "wg0")
			for b.Loop() {
				p, err := Start(b.Context(), Config{Engine: *tested, IfName: "wg0", MTU: testMTU, TUN: tun, Sandbox: level, Log: func(l string) { b.Log(l) }})
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Set(b.Context(), uapi.Update{PrivateKey: &uapi.Secret{1}}.Body()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				p.Close()
				b.StartTimer()
			}
		})
	}
}
