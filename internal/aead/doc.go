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
// It is used when processor and kernel have AVX, AVX2, AVX-512 F, BW, DQ, VL, IFMA and
// VBMI2, and BMI2: Intel since Ice Lake, AMD since Zen 4. GODEBUG=cpu.avx512=off, or
// any other of them, is heeded, but the engine's process is not given GODEBUG. What is
// rare (additional data) or not allowed (buffers that overlap, a nonce of another
// length) goes to the library, which returns or panics as it does.
//
// # What holds
//
//   - Which instructions are run and which memory is touched depends on the length
//     of a packet, and on whether its tag is right, and on nothing else.
//   - Nothing is decrypted before the tag is known to be right. A packet of more than
//     128 bytes is read twice for that, and must not change meanwhile.
//   - The key stream, the key of Poly1305 and its powers are wiped from the stack, and
//     nothing that depends on them is left in the registers.
//   - No byte outside of the buffers is read or written. But a packet that ends right
//     before a page without access takes up to 300 ns more: the processor looks up what
//     it then does not touch.
//
// # What checked it
//
//   - The vectors of RFC 8439, for what they can: those of Poly1305 check the
//     reference of the next line.
//   - Poly1305 by itself against math/big: blocks and keys of all ones and the like,
//     and sums on both sides of 2¹³⁰-5, 2¹³⁰ and each border between limbs, at the end,
//     before blocks of all ones, and in each lane.
//   - The same sums, and tags of all zeros and ones, through seal and open, which have
//     the same steps in other registers: messages are made for them.
//   - The library: every length to 3072 and some to 65535, 4 MiB, each alignment, in
//     place and not, every bit of a tag, buffers that overlap in each way, and a fuzz
//     test. OpenSSL, by a hash of what it made of every length to 2100.
//   - Pages without access before and behind each buffer. What is left in the
//     registers and on the stack is the same for two keys.
//   - The text of the assembly, for all keys and messages at once: no sum or factor is
//     too large for its bits, and no jump, address or mask depends on a secret.
//   - Goroutines on small stacks while garbage is collected all the time.
//   - Each feature of the processor switched off.
//
// Where the processor has no AVX-512 only what reads the assembly's text can fail.
//
// # Review
//
// A second reader, who had no part in the making, read the generator and what it
// writes, and worked out the bounds and the carries anew. None of the results was
// wrong. These faults were found, and are mended:
//
//   - Parts of r and of the last product were left in general registers.
//   - AVX and AVX2 were used without being asked for, and cpu.avx512=off had no effect.
//   - The tests missed much. In seal and open, the last subtraction of the modulus and
//     the rarest carries could be taken out and all passed; so could the look at the
//     tag before decryption, as the caller clears what is refused; and what clears a
//     register before its use, as each call leaves zeros to the next. Some ends of
//     messages of 2176 to 2496 bytes were never opened.
//
// Then each instruction was taken out, and each immediate, condition, carry and operand
// of a vector instruction made another, one at a time: 11,300 mistakes. Of those in
// seal and open all are found now but some 680, which change nothing: what is never
// reached, or done again, or clears what is clear. So are 56 made by hand in the
// generator and in Go.
//
// Done once, as they take long or are from elsewhere: a message of 2³⁸-64 bytes, the
// largest there may be, with its tag from the library and its end compared; the 300
// vectors of Wycheproof, of which 38 have no additional data; half a million runs of
// the fuzz test; profiling signals while packets pass.
package aead
