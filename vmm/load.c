// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Loading Linux into memory that the VMM cannot touch.
 *
 * The images go into ordinary memory of the VMM's that the guest sees above
 * its RAM for a short while. There the guest begins, in a stub of a few
 * instructions (start.S): it copies each piece to its place in RAM, goes on
 * in RAM, tells the VMM to take the loader's memory away, and enters the
 * kernel by Linux's 64-bit boot protocol (Documentation/x86/boot.rst).
 *
 * The loader's memory, from LOADER_START:
 *	0	the stub, as copied to RAM, and page tables for itself
 *	TABLE	the table of pieces
 *	IMAGES	the images, each at a page's start
 */
#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asm/bootparam.h>

#include "rmvm.h"

/* In RAM */
#define BOOT_GPA	0x8000		/* struct boot_area */
#define PARAMS_GPA	0x10000		/* boot_params */
#define CMDLINE_GPA	0x20000
#define CMDLINE_MAX	2048
#define MPTABLE_GPA	0xf0000
#define MPTABLE_MAX	0x10000
#define LOW_RAM_END	0xa0000		/* then 384 KiB that a PC has no RAM in */
#define KERNEL_GPA	0x1000000	/* if the kernel has no wish of its own */

/* In the loader's memory */
#define TABLE		0x10000
#define IMAGES		0x20000
#define MAX_PIECES	64

#define E820_RAM	1
#define E820_RESERVED	2

#define PTE_TABLE	0x023		/* present, writable, accessed */
#define PTE_HUGE	0x0e3		/* the same, dirty, 2 MiB */

/*
 * The stub with all that the processor needs around it. There is a copy in RAM
 * and one in the loader's memory, each with its own addresses inside.
 */
struct boot_area {
	u8 stub[0x200];
	u64 gdt[4];
	struct {
		u16 limit;
		u64 base;
	} __packed gdt_desc;
	u64 pml4[512] __aligned(PAGE);
	u64 pdpt[512];
	u64 pd[4][512];
};

struct loader {
	struct vm *vm;
	u64 used;
	struct piece *pieces;
	unsigned int nr_pieces;
	u64 entry;
	u64 kernel_end;		/* of what the kernel needs at once */
};

static_assert(sizeof(struct boot_area) <= PARAMS_GPA - BOOT_GPA, "boot area in RAM");
static_assert(sizeof(struct boot_area) <= TABLE, "boot area of the loader");
static_assert(MAX_PIECES * sizeof(struct piece) <= IMAGES - TABLE, "table");

/*
 * Makes room for len bytes that are to be copied to dst in RAM. Returns where
 * they are to be put, or NULL. The stub copies multiples of 8 bytes, so up to
 * 7 zeros go too: pieces that touch must come in order.
 */
static void *add_piece(struct loader *ld, const char *what, u64 dst, u64 len)
{
	const struct ram *low = &ld->vm->ram[0];
	u64 src = ld->used;

	if (dst > low->size || len > low->size - dst ||
	    len > LOADER_END - LOADER_START - src - PAGE) {
		fail("%s does not fit into the guest's memory: try more --memory", what);
		return NULL;
	}
	if (ld->nr_pieces == MAX_PIECES - 1) {
		fail("%s has too many parts", what);
		return NULL;
	}
	ld->pieces[ld->nr_pieces++] = (struct piece){
		.dst = dst,
		.src = LOADER_START + src,
		.len = align_up(len, 8),
	};
	ld->used = align_up(src + len, PAGE);
	return ld->vm->loader + src;
}

/* Identity for the first 4 GiB: RAM below and the loader's memory */
static void build_boot_area(struct boot_area *area, u64 gpa)
{
	unsigned int i;

	memcpy(area->stub, load_stub, load_stub_size);
	area->gdt[2] = 0x00af9b000000ffffULL;	/* 0x10: code, 64-bit */
	area->gdt[3] = 0x00cf93000000ffffULL;	/* 0x18: data */
	area->gdt_desc.limit = sizeof(area->gdt) - 1;
	area->gdt_desc.base = gpa + offsetof(struct boot_area, gdt);

	area->pml4[0] = (gpa + offsetof(struct boot_area, pdpt)) | PTE_TABLE;
	for (i = 0; i < 4; i++)
		area->pdpt[i] = (gpa + offsetof(struct boot_area, pd[i])) | PTE_TABLE;
	for (i = 0; i < 4 * 512; i++)
		area->pd[i / 512][i % 512] = i * HUGE_PAGE | PTE_HUGE;
}

static int open_image(const char *path, u64 *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return fail_errno("cannot open %s", path);
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || !st.st_size) {
		close(fd);
		return fail("%s is not a file, or empty", path);
	}
	*size = st.st_size;
	return fd;
}

static int read_at(int fd, const char *path, void *buf, u64 len, u64 offset)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_errno("cannot read %s", path);
		if (!n)
			return fail("%s is cut short", path);
		buf = (u8 *)buf + n;
		len -= n;
		offset += n;
	}
	return 0;
}

static int load_bzimage(struct loader *ld, int fd, const char *path, u64 size,
			struct boot_params *bp)
{
	struct setup_header *hdr = &bp->hdr;
	u8 *end = (u8 *)&hdr->header + (hdr->jump >> 8);
	u64 start, dst;
	void *to;

	/* The header ends where the jump over it goes. */
	if (end < (u8 *)(hdr + 1))
		memset(end, 0, (u8 *)(hdr + 1) - end);
	if (hdr->version < 0x20c || !(hdr->xloadflags & XLF_KERNEL_64))
		return fail("%s has no 64-bit entry", path);
	start = ((hdr->setup_sects ?: 4) + 1) * 512ULL;
	if (start >= size)
		return fail("%s is cut short", path);

	dst = hdr->relocatable_kernel ? hdr->pref_address : KERNEL_GPA;
	to = add_piece(ld, path, dst, size - start);
	if (!to || read_at(fd, path, to, size - start, start))
		return -1;
	ld->entry = dst + 0x200;
	ld->kernel_end = dst + hdr->init_size;
	return 0;
}

static int load_elf(struct loader *ld, int fd, const char *path, const Elf64_Ehdr *ehdr,
		    struct boot_params *bp)
{
	Elf64_Phdr phdr;
	unsigned int i;
	void *to;

	if (ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_machine != EM_X86_64 ||
	    ehdr->e_type != ET_EXEC || ehdr->e_phentsize != sizeof(phdr))
		return fail("%s is not a kernel for x86-64", path);

	for (i = 0; i < ehdr->e_phnum; i++) {
		if (read_at(fd, path, &phdr, sizeof(phdr), ehdr->e_phoff + i * sizeof(phdr)))
			return -1;
		if (phdr.p_type != PT_LOAD)
			continue;
		if (phdr.p_memsz > LOW_END || phdr.p_paddr > LOW_END)
			return fail("%s wants to be where no RAM is", path);
		if (phdr.p_paddr + phdr.p_memsz > ld->kernel_end)
			ld->kernel_end = phdr.p_paddr + phdr.p_memsz;
		if (!phdr.p_filesz)
			continue;
		to = add_piece(ld, path, phdr.p_paddr, phdr.p_filesz);
		if (!to || read_at(fd, path, to, phdr.p_filesz, phdr.p_offset))
			return -1;
	}
	ld->entry = ehdr->e_entry;

	/* A bzImage brings these along. */
	bp->hdr = (struct setup_header){
		.boot_flag = 0xaa55,
		.header = 0x53726448,		/* "HdrS" */
		.version = 0x20f,
		.kernel_alignment = HUGE_PAGE,
		.initrd_addr_max = INT32_MAX,
		.cmdline_size = CMDLINE_MAX - 1,
	};
	return 0;
}

static int load_kernel(struct loader *ld, struct boot_params *bp)
{
	const char *path = ld->vm->opt->kernel;
	union {
		u8 bytes[0x1f1 + sizeof(struct setup_header)];
		Elf64_Ehdr elf;
	} head = { 0 };
	u64 size = 0;
	int fd, ret;

	fd = open_image(path, &size);
	if (fd < 0)
		return -1;
	ret = size < sizeof(head) ? fail("%s is too short for a kernel", path) :
	      read_at(fd, path, &head, sizeof(head), 0);
	if (!ret) {
		memcpy(&bp->hdr, head.bytes + 0x1f1, sizeof(bp->hdr));
		if (!memcmp(head.bytes, ELFMAG, SELFMAG))
			ret = load_elf(ld, fd, path, &head.elf, bp);
		else if (bp->hdr.header == 0x53726448)
			ret = load_bzimage(ld, fd, path, size, bp);
		else
			ret = fail("%s is neither a bzImage nor an ELF vmlinux", path);
	}
	close(fd);
	if (!ret && ld->kernel_end > ld->vm->ram[0].size)
		ret = fail("%s does not fit into the guest's memory: try more --memory", path);
	return ret;
}

/* As high as the kernel allows, from a huge page's start */
static int load_initrd(struct loader *ld, struct boot_params *bp)
{
	const char *path = ld->vm->opt->initrd;
	u64 top = ld->vm->ram[0].size;
	u64 size = 0, dst;
	int fd, ret;
	void *to;

	if (!path)
		return 0;
	fd = open_image(path, &size);
	if (fd < 0)
		return -1;
	if (top > bp->hdr.initrd_addr_max)
		top = bp->hdr.initrd_addr_max;
	dst = size < top ? (top - size) / HUGE_PAGE * HUGE_PAGE : 0;
	if (dst < ld->kernel_end) {
		ret = fail("%s does not fit into the guest's memory: try more --memory", path);
	} else {
		to = add_piece(ld, path, dst, size);
		ret = to ? read_at(fd, path, to, size, 0) : -1;
	}
	close(fd);
	bp->hdr.ramdisk_image = dst;
	bp->hdr.ramdisk_size = size;
	return ret;
}

static void add_e820(struct boot_params *bp, u64 start, u64 end, u32 type)
{
	bp->e820_table[bp->e820_entries++] = (struct boot_e820_entry){
		.addr = start,
		.size = end - start,
		.type = type,
	};
}

/* What the kernel finds in its RAM besides itself */
static int load_params(struct loader *ld, struct boot_params *bp)
{
	const struct vm *vm = ld->vm;
	size_t len = strlen(vm->opt->append) + 1;
	u8 mptable[MPTABLE_MAX] = { 0 };
	size_t mptable_len;
	void *to;

	if (len > CMDLINE_MAX || len > bp->hdr.cmdline_size + 1)
		return fail("the command line is too long for this kernel");
	to = add_piece(ld, "the command line", CMDLINE_GPA, len);
	if (!to)
		return -1;
	memcpy(to, vm->opt->append, len);

	mptable_len = mptable_build(mptable, MPTABLE_GPA, vm->opt->smp);
	to = add_piece(ld, "the table of processors", MPTABLE_GPA, mptable_len);
	if (!to)
		return -1;
	memcpy(to, mptable, mptable_len);

	bp->hdr.type_of_loader = 0xff;
	bp->hdr.loadflags |= LOADED_HIGH | KEEP_SEGMENTS;
	bp->hdr.cmd_line_ptr = CMDLINE_GPA;
	add_e820(bp, 0, LOW_RAM_END, E820_RAM);
	add_e820(bp, LOW_RAM_END, MIB, E820_RESERVED);
	add_e820(bp, MIB, vm->ram[0].size, E820_RAM);
	if (vm->nr_ram > 1)
		add_e820(bp, vm->ram[1].gpa, vm->ram[1].gpa + vm->ram[1].size, E820_RAM);
	to = add_piece(ld, "boot_params", PARAMS_GPA, sizeof(*bp));
	if (!to)
		return -1;
	memcpy(to, bp, sizeof(*bp));
	return 0;
}

static struct kvm_segment segment(u16 selector, u8 type)
{
	return (struct kvm_segment){
		.selector = selector,
		.limit = UINT32_MAX,
		.type = type,
		.present = 1,
		.s = 1,
		.g = 1,
		.l = selector == 0x10,
		.db = selector != 0x10,
	};
}

/* vCPU 0 begins in the stub, in 64-bit mode. */
static int set_registers(const struct loader *ld)
{
	u64 stub = LOADER_START + offsetof(struct boot_area, stub);
	struct kvm_regs regs = {
		.rip = stub,
		.rflags = 2,
		.rbx = LOADER_START + TABLE,
		.r10 = BOOT_GPA + offsetof(struct boot_area, gdt_desc),
		.rax = BOOT_GPA + offsetof(struct boot_area, pml4),
		.rdx = BOOT_GPA + load_trampoline,
		.r8 = ld->entry,
		.r9 = PARAMS_GPA,
	};
	struct kvm_sregs sregs;
	int fd = ld->vm->vcpus[0].fd;

	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return fail_errno("KVM_GET_SREGS");
	sregs.cs = segment(0x10, 0xb);
	sregs.ds = segment(0x18, 0x3);
	sregs.es = sregs.ds;
	sregs.ss = sregs.ds;
	sregs.gdt.base = LOADER_START + offsetof(struct boot_area, gdt);
	sregs.gdt.limit = sizeof(((struct boot_area *)0)->gdt) - 1;
	sregs.cr0 = 0x80000031;		/* PG, NE, ET, PE */
	sregs.cr3 = LOADER_START + offsetof(struct boot_area, pml4);
	sregs.cr4 = 0x20;		/* PAE */
	sregs.efer = 0x500;		/* LMA, LME */
	if (ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs))
		return fail_errno("KVM_SET_SREGS");
	return 0;
}

/* Fills the loader's memory and points vCPU 0 at it. */
int load_guest(struct vm *vm)
{
	struct boot_params bp = { 0 };
	struct loader ld = { .vm = vm, .used = IMAGES };
	struct boot_area *ram_area;

	vm->loader = mmap(NULL, LOADER_END - LOADER_START + HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->loader == MAP_FAILED)
		return fail_errno("no addresses for the loader");
	vm->loader = (u8 *)align_up((uintptr_t)vm->loader, HUGE_PAGE);
	madvise(vm->loader, LOADER_END - LOADER_START, MADV_HUGEPAGE);
	ld.pieces = (struct piece *)(vm->loader + TABLE);

	build_boot_area((struct boot_area *)vm->loader, LOADER_START);
	ram_area = add_piece(&ld, "the loader", BOOT_GPA, sizeof(*ram_area));
	if (!ram_area)
		return -1;
	build_boot_area(ram_area, BOOT_GPA);

	if (load_kernel(&ld, &bp) || load_initrd(&ld, &bp) || load_params(&ld, &bp))
		return -1;
	vm->loader_size = align_up(ld.used, HUGE_PAGE);
	return vm_add_loader(vm) || set_registers(&ld) ? -1 : 0;
}
