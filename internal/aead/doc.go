// Package aead is ChaCha20-Poly1305 (RFC 8439) for WireGuard's packets: that of
// golang.org/x/crypto, and on a processor with AVX-512 an assembly of our own that
// gives the same results faster.
//
// # Why own assembly
//
// The AEAD is half of the engine's processor time. That of golang.org/x/crypto is
// made for AVX2, and does Poly1305 block after block. AVX-512 has twice the width and
// the number of registers, rotates words in one instruction, and multiplies eight
// numbers of 52 bits at once.
//
// Median of the library's time divided by ours, on Sapphire Rapids, both in turn in
// one run of BenchmarkAEAD; open is in place and includes a copy of the packet:
//
//	bytes    64    256   1280   1420   8192   65535
//	seal    1.5   1.2    1.5    1.9    1.7     1.8
//	open    1.6   1.3    1.5    1.6    1.8     1.5
//
// # How
//
// The assembly is written by the program in asm, a module of its own; run go generate
// after a change to it. There, main.go says in which order a packet is done, and
// chacha20.go and poly1305.go begin with a drawing of what is in which register.
//
// It is used when processor and kernel have AVX-512 F, BW, DQ, VL, IFMA and VBMI2, and
// BMI2: Intel since Ice Lake, AMD since Zen 4. What is rare (additional data) or not
// allowed (buffers that overlap, a nonce of another length) goes to the library, which
// returns or panics as it does.
//
// # What holds
//
//   - Which instructions are run and which memory is touched depends on the length
//     of a packet, and on whether its tag is right, and on nothing else.
//   - Nothing is decrypted before the tag is known to be right. A packet of more than
//     128 bytes is read twice for that, and must not change meanwhile.
//   - The key stream, the key of Poly1305 and its powers are wiped from the stack and
//     from the registers.
//   - No byte outside of the buffers is read or written. But a packet that ends right
//     before a page without access takes up to 300 ns more: the processor looks up what
//     it then does not touch.
//
// # What checked it
//
//   - The vectors of RFC 8439, for what they can: those of Poly1305 check the
//     reference of the next line.
//   - Poly1305 by itself against math/big: blocks and keys of all ones and the like,
//     and sums on both sides of 2¹³⁰-5, 2¹³⁰ and each border between limbs. The bounds
//     that no sum may exceed are in asm/poly1305.go.
//   - The library: every length to 2100 and some to 65535, each alignment, in place and
//     not, every bit of a tag, buffers that overlap in each way, and a fuzz test.
//   - Pages without access before and behind each buffer; what is left on the stack.
//   - The tests, by a dozen mistakes put into the assembly one at a time: each was
//     found.
package aead
