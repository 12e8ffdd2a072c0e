/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmvm with a kernel that is not there (machine.c), a guest that is a function
 * for each vCPU, and a backend (backend.c). rmvm with its guest, and the backend, are
 * processes of their own, begun before there is a thread; all see *world.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define MAX_CPUS	3
#define MAX_PAGES	16384	/* 64 MiB, what --memory may be here */
#define PAGE		4096UL
#define NR_NOTES	16

/* BARs of the devices, in the order of the bus: disks, balloon */
#define BAR(device)	(0xf0000000UL + 0x8000UL * (device))
#define NOTIFY(device, queue) (BAR(device) + 0x3000 + 4 * (queue))

enum { SET_STATUS_OK = 0xb, SET_DRIVER_OK = 0xf, NEEDS_RESET = 0x40 };

struct world {
	/* The kernel's */
	bool shared[MAX_PAGES];		/* memory attributes */
	unsigned int conversions;	/* that made pages shared */
	unsigned int punches;
	unsigned int windows, revoked;
	bool no_punch, no_window;	/* they fail */
	int no_private;			/* the error when pages are to be private, or 0 */
	uint64_t held;			/* a page that cannot be private, or 0 */
	double holding_takes;		/* seconds until the kernel says so */
	unsigned int tries;		/* to make it private */
	unsigned int sharing_takes;	/* microseconds */
	unsigned int punch_takes;	/* microseconds */
	double skew;			/* seconds that the clock is ahead */
	/*
	 * A device's thread that has no lock waits before it has its next one, the Nth
	 * from now on (0: it does not): it waits as long as this is set.
	 */
	unsigned int waits_at_lock;
	bool waits;
	uint64_t irqfds[16];		/* ids of the eventfds, or 0 */
	int ioeventfds;			/* there are */

	/* The backend's */
	unsigned int requests[40];	/* how many of each, those without an answer too */
	unsigned int unanswered;
	int regions;			/* it has */
	uint64_t features;		/* that were set */
	bool gone;			/* the connection was closed */
	uint64_t call_id;		/* of the eventfd for interrupts */
	/* How it behaves */
	double lag;			/* seconds that each answer takes */
	int stalls_at;			/* the request that is not answered */
	unsigned int staller;		/* by which of the backends */
	bool fills_kick;
	bool no_slots;

	uint64_t notes[NR_NOTES];	/* the guest's and the test's */
};

extern struct world *world;

void pause_a_moment(void);

/* Waits for something in *world; the harness ends a test that waits too long. */
#define until(condition) \
	do { \
		while (!(condition)) \
			pause_a_moment(); \
	} while (0)

/* The test's side */
void world_make(void);

struct plan {
	const char *args[12];		/* rmvm's, besides kernel and memory */
	void (*guest[MAX_CPUS])(void);
	int in, out, err;		/* rmvm's ends, 0: none, and the test's stderr */
};

pid_t machine_start(const struct plan *plan);
int machine_wait(pid_t pid);		/* the exit status, or minus the signal */

/* The guest's side: as if it were instructions */
void g_out(uint16_t port, uint32_t value, unsigned int size);
uint32_t g_in(uint16_t port, unsigned int size);
void g_write(uint64_t gpa, uint64_t value, unsigned int size);
uint64_t g_read(uint64_t gpa, unsigned int size);
int64_t g_convert(uint64_t gpa, uint64_t pages, bool private);
void g_fault(uint64_t gpa, bool private, int error);
void g_halt(void);
void g_stuck_until_kicked(unsigned int cpu);
void *g_ram(uint64_t gpa);		/* shared pages */

void g_device_enable(unsigned int device);
void g_device_features(unsigned int device, uint64_t features);
void g_device_queue(unsigned int device, unsigned int queue, uint64_t gpa);
void g_device_status(unsigned int device, unsigned int status);
unsigned int g_device_status_now(unsigned int device);

/* What the linker makes of the calls of rmvm's */
int rmvm_main(int argc, char **argv);
int __real_open64(const char *path, int flags, ...);
int __real_ioctl(int fd, unsigned long request, ...);
int __real_fallocate64(int fd, int mode, off_t offset, off_t len);
void *__real_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len);
void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
unsigned int __real_alarm(unsigned int seconds);
int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);
unsigned int __wrap_alarm(unsigned int seconds);

uint64_t eventfd_id(int fd);

/* shared.c: does rmvm's set of ranges do as a set does? */
bool shared_is_a_set(void);

/* backend.c: its socket's path, the next one's when it is called again */
const char *backend_start(void);

#endif /* MACHINE_H */
