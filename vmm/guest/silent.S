/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A guest (rmvm --kernel) that dies of a triple fault without a word.
 */
	.section .text
	.globl	_start
_start:
	lidt	nothing(%rip)
	ud2
nothing:
	.fill	10
	.section .note.GNU-stack, "", @progbits
