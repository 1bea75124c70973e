#include "textflag.h"

// The kernel calls with (number DI, siginfo SI, context DX). All registers are
// put back by rt_sigreturn, so nothing is saved.
TEXT catchSignal<>(SB),NOSPLIT|NOFRAME,$0
	MOVL	·signalPipe(SB), DI
	MOVL	$128, DX // sizeof(siginfo_t)
	MOVL	$1, AX // write
	SYSCALL
	RET

TEXT restoreSignal<>(SB),NOSPLIT|NOFRAME,$0
	MOVL	$15, AX // rt_sigreturn
	SYSCALL
	INT	$3

DATA ·catchSignalPC(SB)/8, $catchSignal<>(SB)
GLOBL ·catchSignalPC(SB), NOPTR, $8
DATA ·restoreSignalPC(SB)/8, $restoreSignal<>(SB)
GLOBL ·restoreSignalPC(SB), NOPTR, $8
