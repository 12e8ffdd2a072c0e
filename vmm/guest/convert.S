/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A guest of its own, without an operating system (rmvm --kernel): converts
 * pages of its RAM to shared and back by hypercall, which Linux leaves alone
 * on this kind of VM. Says "GUEST OK convert", or "GUEST FAIL convert" with
 * the letter of the step that went wrong, and ends by triple fault.
 */
#define KVM_HC_MAP_GPA_RANGE	12
#define PRIVATE			0x10
#define PORT_SERIAL		0x3f8
#define PORT_DISCARD		0x5f0
#define PAGES			16
#define AREA			0x2001000	/* not where a huge page begins */

/* \step: the hypercall on \pages pages at \gpa returns \want. */
.macro map	step, gpa, pages, attributes, want
	movb	$\step, step(%rip)
	mov	$KVM_HC_MAP_GPA_RANGE, %eax
	mov	$\gpa, %ebx
	mov	$\pages, %ecx
	mov	$\attributes, %edx
	call	*hypercall(%rip)
	cmp	$\want, %rax
	jne	failed
.endm

/* \step: the first and last word of the area are \want. */
.macro expect	step, want
	movb	$\step, step(%rip)
	cmpq	$\want, AREA
	jne	failed
	cmpq	$\want, AREA + PAGES * 4096 - 8
	jne	failed
.endm

.macro fill	value
	movq	$\value, AREA
	movq	$\value, AREA + PAGES * 4096 - 8
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
	fill	0x1111
	expect	'a', 0x1111
	map	'b', AREA, PAGES, 0, 0
	expect	'c', 0
	fill	0x2222
	expect	'd', 0x2222
	map	'e', AREA, PAGES, 0, 0		/* they are shared already */
	expect	'f', 0x2222
	mov	$AREA >> 12, %eax
	mov	$PORT_DISCARD, %dx
	out	%eax, %dx
	mov	$(AREA >> 12) + PAGES - 1, %eax
	out	%eax, %dx
	expect	'g', 0
	fill	0x3333
	map	'h', AREA, PAGES, PRIVATE, 0
	expect	'i', 0
	fill	0x4444
	map	'j', AREA, PAGES, PRIVATE, 0
	expect	'k', 0x4444
	map	'l', 0xe0000000, 1, 0, -22	/* not RAM: KVM_EINVAL */
	map	'm', AREA, 0, 0, -22
	lea	good(%rip), %rsi
	call	print
	jmp	end

failed:
	lea	bad(%rip), %rsi
	call	print
	mov	step(%rip), %al
	out	%al, %dx
	mov	$'\n', %al
	out	%al, %dx
end:
	lidt	nothing(%rip)
	ud2

print:
	mov	$PORT_SERIAL, %dx
1:	lodsb
	test	%al, %al
	jz	2f
	out	%al, %dx
	jmp	1b
2:	ret

vmcall:
	vmcall
	ret
vmmcall:
	vmmcall
	ret

	.section .data
hypercall:
	.quad	vmmcall
good:
	.asciz	"GUEST OK convert\n"
bad:
	.asciz	"GUEST FAIL convert, step "
step:
	.byte	0
nothing:
	.fill	10
	.balign	16
	.fill	1024
stack:
	.section .note.GNU-stack, "", @progbits
