/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The guest's first code, in 64-bit mode with interrupts off. It runs at two
 * addresses, neither of which the linker knew: from its start in the loader's
 * memory, and from the trampoline in the copy of itself that it made in RAM.
 * load.c sets the registers:
 *
 *	rbx	table of struct piece, ended by a length of 0
 *	r10	descriptor of the GDT in RAM
 *	rax	page tables in RAM
 *	rdx	the trampoline in RAM
 *	r8	the kernel's 64-bit entry
 *	r9	the kernel's boot_params
 */
#define PORT_LOADED	0x5f4

	.section .rodata
	.globl	load_stub, load_stub_size, load_trampoline
	.balign	16
load_stub:
	cld
1:	mov	0(%rbx), %rdi
	mov	8(%rbx), %rsi
	mov	16(%rbx), %rcx
	jrcxz	2f
	shr	$3, %rcx
	rep	movsq
	add	$24, %rbx
	jmp	1b
2:	lgdt	(%r10)
	mov	%rax, %cr3
	jmp	*%rdx

trampoline:
	/* The VMM takes the loader's memory away here. */
	mov	$PORT_LOADED, %dx
	out	%al, %dx
	mov	%r9, %rsi
	jmp	*%r8
stub_end:

	.balign	8
load_stub_size:
	.quad	stub_end - load_stub
load_trampoline:			/* where it is in the stub */
	.quad	trampoline - load_stub

	.section .note.GNU-stack, "", @progbits
