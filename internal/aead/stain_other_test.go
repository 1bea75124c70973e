//go:build !amd64

package aead

func stainHere() {}
