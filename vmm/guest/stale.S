/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A guest of its own (rmvm --kernel, --smp 2): one processor reads a page again
 * and again while the other one shares it, makes it private at once and writes to
 * it. What is written there stays, whenever the reader was told that it cannot have
 * the page. Says "GUEST OK stale" or "GUEST FAIL stale", and ends by triple fault.
 */
#define KVM_HC_MAP_GPA_RANGE	12
#define PRIVATE			0x10
#define PORT_SERIAL		0x3f8
#define APIC_ICR		0xfee00300
#define INIT			0xc4500		/* to all others */
#define STARTUP			0xc4600		/* and the page where they start */
#define READER			0x70000		/* that page */
#define AREA			0x2001000
#define ROUNDS			20
#define WORD			0x5a5a5a5a

.macro map	attributes
	mov	$KVM_HC_MAP_GPA_RANGE, %eax
	mov	$AREA, %ebx
	mov	$1, %ecx
	mov	$\attributes, %edx
	call	*hypercall(%rip)
	test	%rax, %rax
	jne	failed
.endm

	.section .text
	.globl	_start
_start:
	mov	$stack, %rsp
	xor	%eax, %eax
	cpuid
	cmp	$0x444d4163, %ecx		/* "cAMD" */
	je	1f
	lea	vmcall(%rip), %rax
	mov	%rax, hypercall(%rip)
1:
	mov	$reader, %esi
	mov	$READER, %edi
	mov	$reader_end - reader, %ecx
	rep movsb
	mov	%cr3, %rax
	mov	%eax, READER + reader_cr3 - reader
	sgdt	READER + reader_gdt - reader
	mov	$APIC_ICR, %edi
	movl	$INIT, (%rdi)
	movl	$STARTUP | READER >> 12, (%rdi)
	mov	$ROUNDS, %r12d
	call	wait
round:
	map	0
	map	PRIVATE
	movq	$WORD, AREA
	call	wait
	cmpq	$WORD, AREA
	jne	failed
	dec	%r12d
	jnz	round
	lea	good(%rip), %rsi
	jmp	print
failed:
	lea	bad(%rip), %rsi
print:
	mov	$PORT_SERIAL, %dx
1:	lodsb
	test	%al, %al
	jz	2f
	out	%al, %dx
	jmp	1b
2:	lidt	nothing(%rip)
	ud2

/* Until the reader has read twice more: then nothing is under way from before. */
wait:
	mov	reads(%rip), %rax
	add	$2, %rax
1:	pause
	cmp	%rax, reads(%rip)
	jb	1b
	ret

vmcall:
	vmcall
	ret
vmmcall:
	vmmcall
	ret

/* In long mode, with the page tables and segments of the first one */
reader64:
	mov	AREA, %rax
	lock incq reads(%rip)
	pause
	jmp	reader64

	.code16
reader:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	reader_gdt - reader
	mov	$0x20, %eax			/* PAE */
	mov	%eax, %cr4
	movl	reader_cr3 - reader, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx		/* EFER: LME */
	mov	$0x100, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80000011, %eax		/* PG, ET, PE */
	mov	%eax, %cr0
	ljmpl	$0x10, $reader64
	.balign	8
reader_cr3:
	.long	0
reader_gdt:
	.fill	10
reader_end:
	.code64

	.section .data
hypercall:
	.quad	vmmcall
reads:
	.quad	0
good:
	.asciz	"GUEST OK stale\n"
bad:
	.asciz	"GUEST FAIL stale\n"
nothing:
	.fill	10
	.balign	16
	.fill	1024
stack:
	.section .note.GNU-stack, "", @progbits
