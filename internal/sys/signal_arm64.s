#include "textflag.h"

// The kernel calls with (number R0, siginfo R1, context R2) and returns through
// the vDSO to rt_sigreturn, which puts all registers back.
TEXT catchSignal<>(SB),NOSPLIT|NOFRAME,$0
	MOVW	·signalPipe(SB), R0
	MOVD	$128, R2 // sizeof(siginfo_t)
	MOVD	$64, R8 // write
	SVC
	RET

DATA ·catchSignalPC(SB)/8, $catchSignal<>(SB)
GLOBL ·catchSignalPC(SB), NOPTR, $8
