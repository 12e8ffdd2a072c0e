/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the files of rmvm share. Ranges are an address and a size in bytes, or
 * [start, end). Functions that return int return 0, or -1 after an error
 * message.
 */
#ifndef RMVM_H
#define RMVM_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <restrictedmem_kvm.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define KIB			1024ULL
#define MIB			(1024 * KIB)
#define GIB			(1024 * MIB)
#define PAGE			(4 * KIB)
#define HUGE_PAGE		(2 * MIB)

#define BIT(n)			(1ULL << (n))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define __packed		__attribute__((packed))
#define __aligned(x)		__attribute__((aligned(x)))
#define __printf(fmt, args)	__attribute__((format(printf, fmt, args)))

static inline u64 align_up(u64 x, u64 unit)
{
	return (x + unit - 1) / unit * unit;
}

/*
 * Guest physical addresses. RAM is [0, LOW_END) and what does not fit there
 * from HIGH_START; between them are the loader's memory, while it is needed,
 * the registers of PCI devices, and the interrupt controllers.
 */
#define LOW_END			(3 * GIB)
#define LOADER_START		LOW_END
#define LOADER_END		(LOW_END + 768 * MIB)
#define PCI_START		LOADER_END
#define HIGH_START		(4 * GIB)

/* Ports that no PC has */
#define PORT_DISCARD		0x5f0	/* 32-bit write: a page frame number */
#define PORT_LOADED		0x5f4	/* any write: the loader has finished */

#define MAX_VCPUS		255
#define MAX_EXIT_REASON		64
#define MAX_DISKS		4

/* Exit statuses, see rmvm(1) */
enum end {
	END_GUEST = 0,		/* the guest shut itself down */
	END_ERROR = 1,
	END_USAGE = 2,
	END_TIMEOUT = 3,
	END_USER = 4,		/* Ctrl-A x, or a signal */
	END_NOT_YET = -1,
};

enum backing {
	BACKING_RESTRICTED,	/* a file of /dev/restrictedmem */
	BACKING_IN_PLACE,	/* the same, whose pages can be shared in place */
	BACKING_GUEST_MEMFD,	/* a file of KVM_CREATE_GUEST_MEMFD */
	BACKING_MEMFD,		/* ordinary shared memory */
};

struct options {
	const char *kernel;
	const char *initrd;
	const char *append;
	const char *stats_file;
	const char *disks[MAX_DISKS];	/* sockets of their backends */
	unsigned int nr_disks;
	unsigned int backend_timeout;
	u64 memory;
	u64 pool;		/* page size, 0: not from a pool */
	unsigned int smp;
	unsigned int timeout;
	enum backing backing;
	bool huge;
	bool balloon;
	bool report_fdinfo;
	bool verbose;
};

/* One part of RAM: a memslot, and a range of the memory file */
struct ram {
	u64 gpa;
	u64 size;
	u64 offset;
};

/* Pages of RAM */
struct range {
	u64 gpa;
	u64 size;
};

/* What a process needs to map a range: a descriptor, and an offset there */
struct window {
	u64 gpa;
	u64 size;
	u64 offset;
	int fd;
};

/* One thing that the loader stub copies: the stub reads this struct */
struct piece {
	u64 dst;
	u64 src;
	u64 len;
};

struct counts {
	u64 exits[MAX_EXIT_REASON];
	u64 to_shared;	/* pages, as are the next two */
	u64 to_private;
	u64 discarded;
	u64 conversions_busy;	/* that failed, because somebody held a page */
	u64 windows;
	u64 faults_taken;
	u64 faults_fixed;
	u64 pages_4k;
	u64 pages_2m;
	u64 pages_1g;
	u64 resident;	/* bytes */
	double seconds_loader;	/* from the start of vCPU 0 */
	double seconds_total;
};

struct vcpu {
	struct vm *vm;
	unsigned int id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	u64 conversions;	/* vm->conversions, when an access last failed */
	u64 exits[MAX_EXIT_REASON];
};

struct vm {
	const struct options *opt;
	int kvm;
	int fd;

	/* RAM: the file, and the host addresses of the slots */
	int mem_fd;
	u8 *host;
	struct ram ram[2];
	unsigned int nr_ram;
	bool private;
	bool in_place;

	/* What of it is shared: in order, no two ranges touch (window.c) */
	struct range *shared;
	unsigned int nr_shared, max_shared;
	u64 conversions;	/* changes of the kind of pages, tried or done */

	/* The loader's memory, gone (size 0) once the guest runs from RAM */
	u8 *loader;
	u64 loader_size;

	struct vcpu *vcpus;
	size_t run_size;

	/*
	 * Conversions, the loader, shared, and what backends have of it. Who holds
	 * it may wait for a backend, for as long as that has for one operation.
	 */
	pthread_mutex_t mem_lock;
	pthread_mutex_t end_lock;	/* end */
	pthread_cond_t end_cond;
	enum end end;
	double start;
	struct counts counts;
};

/* A page that this process itself looks at */
struct borrowed {
	u8 *at;			/* NULL: nothing is borrowed */
	u64 gpa;
	bool was_shared;
};

/* vm.c */
int vm_create(struct vm *vm, const struct options *opt);
u64 vm_offset(const struct vm *vm, u64 gpa);
int vm_add_loader(struct vm *vm);
void vm_remove_loader(struct vm *vm);
bool vm_is_ram(const struct vm *vm, u64 gpa, u64 size);
int vm_convert(struct vm *vm, u64 gpa, u64 size, bool to_private);
u64 vm_conversions(struct vm *vm);
int vm_discard(struct vm *vm, u64 gpa, u64 size);
int vm_borrow(struct vm *vm, struct borrowed *page, u64 gpa);
void vm_give_back(struct vm *vm, struct borrowed *page);

/* vcpu.c */
int vcpu_create(struct vm *vm, unsigned int id);
int vcpu_start(struct vcpu *vcpu);
void vcpu_kick(struct vcpu *vcpu);
void vm_end(struct vm *vm, enum end end);
bool vm_ended(struct vm *vm);

/* start.S */
extern const u8 load_stub[];
extern const u64 load_stub_size, load_trampoline;

/* load.c */
int load_guest(struct vm *vm);

/* mptable.c */
size_t mptable_build(u8 *buf, u64 gpa, unsigned int nr_cpus);

/* pci.c */
bool pci_io(bool out, u16 port, void *data, unsigned int size);
bool pci_mmio(u64 gpa, void *data, unsigned int size, bool write);

/* window.c */
int shared_reserve(struct vm *vm);
void shared_add(struct vm *vm, u64 gpa, u64 size);
void shared_remove(struct vm *vm, u64 gpa, u64 size);
bool shared_gap(const struct vm *vm, u64 gpa, u64 size, struct range *gap);
struct range *shared_save(const struct vm *vm, unsigned int *nr);
void shared_restore(struct vm *vm, const struct range *from, unsigned int nr);
bool shared_covers(const struct vm *vm, u64 gpa, u64 size);
int window_open(struct vm *vm, struct window *window, u64 gpa, u64 size);
void window_close(struct vm *vm, struct window *window);

/* vhost_blk.c */
int vhost_blk_add(struct vm *vm, const char *path);
void vhost_blk_begin(struct vm *vm);
void vhost_blk_sync(struct vm *vm, unsigned int times_more);
bool vhost_blk_has(u64 gpa);
void vhost_blk_end(void);

/* balloon.c */
int balloon_add(struct vm *vm);
void balloon_leave(struct vm *vm, u64 gpa, u64 size);

/* devices.c */
void devices_io(struct vm *vm, bool out, u16 port, void *data, unsigned int size);

/* serial.c */
int serial_init(struct vm *vm);
void serial_flush(void);
void serial_exit(void);
bool serial_has_spoken(void);
u8 serial_read(unsigned int reg);
void serial_write(unsigned int reg, u8 value);

/* stats.c */
void stats_sample(struct vm *vm);
void stats_print(struct vm *vm, FILE *to);
void stats_fdinfo(struct vm *vm, FILE *to);

/* rmvm.c */
double now(void);
__printf(1, 2) void say(const char *fmt, ...);
__printf(1, 2) int fail(const char *fmt, ...);
__printf(2, 3) int fail_once(bool *said, const char *fmt, ...);
__printf(1, 2) int fail_errno(const char *fmt, ...);

#endif /* RMVM_H */
