// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The kernel that rmvm sees in these tests. The linker gives us its calls
 * (--wrap): what is for KVM or for restricted memory is done here, as far as rmvm
 * can tell the difference, and the rest is the real kernel's.
 *
 * KVM_RUN lets the guest's function go on until it does something that exits.
 */
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm_para.h>
#include <restrictedmem.h>
#include <restrictedmem_kvm.h>

#include "machine.h"

#define RUN_SIZE	8192
#define DATA_OFFSET	4096
#define MAX_WINDOWS	64

struct world *world;
static const struct plan *plan;

struct cpu {
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	sem_t to_guest, to_host;
	bool started;
	bool exited;			/* the guest waits for the end of its exit */
	int error;
	struct cpu *after;		/* KVM_RUN does not hear of a kick before this one did */
};

static struct cpu cpus[MAX_CPUS];
static unsigned int nr_cpus;
static __thread struct cpu *self;
static __thread bool runs_vcpu;
static __thread unsigned int nr_locks;	/* that this thread has */

static int mem_fd = -1;
static char *host;			/* the user half of the RAM slot, or NULL */
static struct { ino_t ino; off_t offset; } windows[MAX_WINDOWS];
static struct { uint64_t addr; int fd; } ioeventfds[16];

void pause_a_moment(void)
{
	usleep(1000);
}

uint64_t eventfd_id(int fd)
{
	char path[64], line[128];
	unsigned long id = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "eventfd-id: %lu", &id) == 1)
			id++;			/* the first is 0 */
	if (f)
		fclose(f);
	return id;
}

/* The kernel */

int __wrap_open64(const char *path, int flags, ...)
{
	if (!strcmp(path, "/dev/kvm") || !strcmp(path, "/dev/restrictedmem"))
		return memfd_create(path, 0);
	return __real_open64(path, flags, 0);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int ret = __real_clock_gettime(clock, ts);

	ts->tv_sec += (time_t)world->skew;
	return ret;
}

/* For rmvm's own, which is there for the worst case: so long no test waits. */
unsigned int __wrap_alarm(unsigned int seconds)
{
	return __real_alarm(plan ? (seconds + 9) / 10 : seconds);
}

/* The moment before a lock is had: what others do with it meanwhile is the test's. */
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	if (!nr_locks++ && world->waits_at_lock && !runs_vcpu && getpid() != gettid() &&
	    !--world->waits_at_lock) {
		world->waits = true;
		until(!world->waits);
	}
	return __real_pthread_mutex_lock(lock);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
	nr_locks--;
	return __real_pthread_mutex_unlock(lock);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len)
{
	world->punches++;
	usleep(world->punch_takes);
	if (world->no_punch) {
		errno = EIO;
		return -1;
	}
	return __real_fallocate64(fd, mode, offset, len);
}

void *__wrap_mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	struct stat st;
	unsigned int i;

	if (fd >= 0 && !fstat(fd, &st))
		for (i = 0; i < world->windows; i++)
			if (windows[i].ino == st.st_ino)
				return __real_mmap64(addr, len, prot, flags, mem_fd,
						     windows[i].offset);
	return __real_mmap64(addr, len, prot, flags, fd, offset);
}

static int set_attributes(const struct kvm_memory_attributes *a)
{
	bool private = a->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
	uint64_t i;

	if (private && world->no_private) {
		errno = world->no_private;
		return -1;
	}
	for (i = a->address / PAGE; i < (a->address + a->size) / PAGE && i < MAX_PAGES; i++) {
		if (private && world->held && i == world->held / PAGE) {
			world->tries++;
			world->skew += world->holding_takes;
			errno = EAGAIN;
			return -1;
		}
		world->shared[i] = !private;
	}
	world->conversions += !private;
	if (!private)
		usleep(world->sharing_takes);
	return 0;
}

static int open_window(const struct restrictedmem_window *w)
{
	struct stat st;
	int fd;

	if (world->no_window || world->windows == MAX_WINDOWS) {
		errno = EMFILE;
		return -1;
	}
	fd = memfd_create("window", 0);
	fstat(fd, &st);
	windows[world->windows].ino = st.st_ino;
	windows[world->windows++].offset = w->offset;
	return fd;
}

static int add_irqfd(const struct kvm_irqfd *irqfd)
{
	uint64_t id = eventfd_id(irqfd->fd);
	unsigned int i;

	for (i = 0; i < 16; i++) {
		if (irqfd->flags && world->irqfds[i] == id) {
			world->irqfds[i] = 0;
			return 0;
		}
		if (!irqfd->flags && !world->irqfds[i]) {
			world->irqfds[i] = id;
			return 0;
		}
	}
	errno = ENOENT;
	return -1;
}

static int add_ioeventfd(const struct kvm_ioeventfd *e)
{
	unsigned int i;

	for (i = 0; i < 16; i++)
		if (e->flags ? ioeventfds[i].addr == e->addr : !ioeventfds[i].addr) {
			ioeventfds[i].addr = e->flags ? 0 : e->addr;
			ioeventfds[i].fd = e->fd;
			world->ioeventfds += e->flags ? -1 : 1;
			return 0;
		}
	errno = ENOENT;
	return -1;
}

static int create_vcpu(void)
{
	struct cpu *cpu = &cpus[nr_cpus++];

	cpu->fd = memfd_create("vcpu", 0);
	if (ftruncate(cpu->fd, RUN_SIZE))
		err(1, "ftruncate");
	cpu->run = __real_mmap64(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	sem_init(&cpu->to_guest, 0, 0);
	sem_init(&cpu->to_host, 0, 0);
	return cpu->fd;
}

static void *guest_thread(void *arg)
{
	self = arg;
	plan->guest[self - cpus]();
	g_halt();
	return NULL;
}

static void start_guest(struct cpu *cpu)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_create(&cpu->thread, NULL, guest_thread, cpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	cpu->started = true;
}

static int run_vcpu(int fd)
{
	struct cpu *cpu = cpus;
	struct timespec ts;

	runs_vcpu = true;
	while (cpu->fd != fd)
		cpu++;
	if (cpu->exited)
		sem_post(&cpu->to_guest);
	cpu->exited = false;
	if (!cpu->started)
		start_guest(cpu);
	do {
		if (cpu->run->immediate_exit &&
		    (!cpu->after || cpu->after->run->immediate_exit)) {
			errno = EINTR;
			return -1;
		}
		__real_clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 10000000;
		ts.tv_sec += ts.tv_nsec / 1000000000;
		ts.tv_nsec %= 1000000000;
	} while (sem_timedwait(&cpu->to_host, &ts));
	cpu->exited = true;
	errno = cpu->error;
	return cpu->error ? -1 : 0;
}

static int check_extension(unsigned long cap)
{
	switch (cap) {
	case KVM_CAP_VM_TYPES:
		return 1 << KVM_X86_SW_PROTECTED_VM | 1;
	case KVM_CAP_MAX_VCPUS:
		return MAX_CPUS;
	default:
		return 1;
	}
}

static int add_slot(const struct kvm_userspace_memory_region2 *region)
{
	host = (char *)(uintptr_t)region->userspace_addr;
	return 0;
}

static int create_memory(uint64_t len)
{
	mem_fd = memfd_create("ram", 0);
	return ftruncate(mem_fd, len) ? -1 : mem_fd;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CHECK_EXTENSION:
		return check_extension((unsigned long)arg);
	case KVM_GET_VCPU_MMAP_SIZE:
		return RUN_SIZE;
	case KVM_CREATE_VM:
		return memfd_create("vm", 0);
	case KVM_CREATE_VCPU:
		return create_vcpu();
	case KVM_GET_SUPPORTED_CPUID:
		((struct kvm_cpuid2 *)arg)->nent = 0;
		return 0;
	case KVM_SET_MSRS:
		return 2;
	case KVM_SET_USER_MEMORY_REGION2:
		return add_slot(arg);
	case KVM_SET_MEMORY_ATTRIBUTES:
		return set_attributes(arg);
	case KVM_CREATE_GUEST_MEMFD:
		return create_memory(((struct kvm_create_guest_memfd *)arg)->size);
	case RESTRICTEDMEM_CREATE:
		return create_memory(((struct restrictedmem_create *)arg)->length);
	case RESTRICTEDMEM_WINDOW:
		return open_window(arg);
	case RESTRICTEDMEM_REVOKE:
		world->revoked++;
		return 0;
	case KVM_RUN:
		return run_vcpu(fd);
	case KVM_IRQFD:
		return add_irqfd(arg);
	case KVM_IOEVENTFD:
		return add_ioeventfd(arg);
	case KVM_GET_STATS_FD:
		errno = ENOTTY;
		return -1;
	default:
		/* KVM's others have nothing to say here. */
		return _IOC_TYPE(request) == KVMIO ? 0 : __real_ioctl(fd, request, arg);
	}
}

/* The guest */

static void do_exit(unsigned int reason, int error)
{
	self->run->exit_reason = reason;
	self->error = error;
	sem_post(&self->to_host);
	while (sem_wait(&self->to_guest))
		;
}

static void do_io(uint16_t port, bool out, unsigned int size)
{
	self->run->io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	self->run->io.size = size;
	self->run->io.port = port;
	self->run->io.count = 1;
	self->run->io.data_offset = DATA_OFFSET;
	do_exit(KVM_EXIT_IO, 0);
}

void g_out(uint16_t port, uint32_t value, unsigned int size)
{
	memcpy((char *)self->run + DATA_OFFSET, &value, size);
	do_io(port, true, size);
}

uint32_t g_in(uint16_t port, unsigned int size)
{
	uint32_t value = 0;

	do_io(port, false, size);
	memcpy(&value, (char *)self->run + DATA_OFFSET, size);
	return value;
}

static bool kvm_takes_it(uint64_t gpa)
{
	struct pollfd pollfd = { .events = POLLOUT };
	uint64_t one = 1;
	unsigned int i;

	for (i = 0; i < 16; i++)
		if (ioeventfds[i].addr == gpa) {
			pollfd.fd = ioeventfds[i].fd;
			if (poll(&pollfd, 1, 0) > 0 && write(pollfd.fd, &one, sizeof(one)) < 0)
				warn("eventfd");
			return true;
		}
	return false;
}

void g_write(uint64_t gpa, uint64_t value, unsigned int size)
{
	if (kvm_takes_it(gpa))
		return;
	self->run->mmio.phys_addr = gpa;
	self->run->mmio.len = size;
	self->run->mmio.is_write = 1;
	memcpy(self->run->mmio.data, &value, size);
	do_exit(KVM_EXIT_MMIO, 0);
}

uint64_t g_read(uint64_t gpa, unsigned int size)
{
	uint64_t value = 0;

	self->run->mmio.phys_addr = gpa;
	self->run->mmio.len = size;
	self->run->mmio.is_write = 0;
	do_exit(KVM_EXIT_MMIO, 0);
	memcpy(&value, self->run->mmio.data, size);
	return value;
}

int64_t g_convert(uint64_t gpa, uint64_t pages, bool private)
{
	self->run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
	self->run->hypercall.args[0] = gpa;
	self->run->hypercall.args[1] = pages;
	self->run->hypercall.args[2] = private ? KVM_MAP_GPA_RANGE_ENCRYPTED : 0;
	do_exit(KVM_EXIT_HYPERCALL, 0);
	return self->run->hypercall.ret;
}

/* KVM_RUN fails so once; what the guest does next is the access, which succeeds. */
void g_fault(uint64_t gpa, bool private, int error)
{
	struct restrictedmem_kvm_memory_fault *fault = restrictedmem_kvm_memory_fault(self->run);

	fault->gpa = gpa;
	fault->size = PAGE;
	fault->flags = private ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0;
	do_exit(KVM_EXIT_MEMORY_FAULT, error);
}

void g_halt(void)
{
	for (;;)
		pause();
}

/* KVM_RUN does not come back before that one was kicked. */
void g_stuck_until_kicked(unsigned int cpu)
{
	self->after = &cpus[cpu];
	g_halt();
}

void *g_ram(uint64_t gpa)
{
	static char *file;

	if (host)
		return host + gpa;
	if (!file)
		file = __real_mmap64(NULL, MAX_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				     mem_fd, 0);
	return file + gpa;
}

void g_device_enable(unsigned int device)
{
	g_out(0xcf8, 0x80000000 | (device + 1) << 11 | 4, 4);
	g_out(0xcfc, 6, 2);
}

void g_device_status(unsigned int device, unsigned int status)
{
	g_write(BAR(device) + 20, status, 1);
}

unsigned int g_device_status_now(unsigned int device)
{
	return g_read(BAR(device) + 20, 1);
}

void g_device_features(unsigned int device, uint64_t features)
{
	g_device_status(device, 0);
	g_device_status(device, 3);
	g_write(BAR(device) + 8, 0, 4);
	g_write(BAR(device) + 12, (uint32_t)features, 4);
	g_write(BAR(device) + 8, 1, 4);
	g_write(BAR(device) + 12, features >> 32, 4);
}

/* Its three parts are in one page: at 0, 2048 and 3072. */
void g_device_queue(unsigned int device, unsigned int queue, uint64_t gpa)
{
	g_write(BAR(device) + 22, queue, 2);
	g_write(BAR(device) + 24, 32, 2);
	g_write(BAR(device) + 26, queue, 2);
	g_write(BAR(device) + 32, gpa, 4);
	g_write(BAR(device) + 40, gpa + 2048, 4);
	g_write(BAR(device) + 48, gpa + 3072, 4);
	g_write(BAR(device) + 28, 1, 2);
	/* Unmask the vector. */
	g_write(BAR(device) + 0x4000 + 16 * queue + 12, 0, 4);
}

/* The test */

void world_make(void)
{
	world = __real_mmap64(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (world == MAP_FAILED)
		err(1, "mmap");
	world->stalls_at = -1;
}

/* A kernel that nobody runs */
static const char *make_kernel(void)
{
	static char path[64], image[4096];
	Elf64_Ehdr *ehdr = (void *)image;
	Elf64_Phdr *phdr = (void *)(ehdr + 1);
	int fd = memfd_create("kernel", 0);

	memcpy(ehdr->e_ident, ELFMAG, SELFMAG);
	ehdr->e_ident[EI_CLASS] = ELFCLASS64;
	ehdr->e_machine = EM_X86_64;
	ehdr->e_type = ET_EXEC;
	ehdr->e_phentsize = sizeof(*phdr);
	ehdr->e_phoff = sizeof(*ehdr);
	ehdr->e_phnum = 1;
	*phdr = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_paddr = 0x100000,
		.p_filesz = sizeof(image),
		.p_memsz = sizeof(image),
	};
	if (write(fd, image, sizeof(image)) != sizeof(image))
		err(1, "kernel");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

static void redirect(int from, int to)
{
	int fd = from ?: __real_open64("/dev/null", O_RDWR);

	if (fd < 0 || dup2(fd, to) < 0)
		err(1, "dup2");
}

pid_t machine_start(const struct plan *p)
{
	char *argv[32] = { "rmvm", "--stats=/dev/null", "--memory=32", "--kernel",
			   (char *)make_kernel() };
	char smp[16];
	int argc = 5, i;
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	plan = p;
	for (i = 0; i < MAX_CPUS && p->guest[i]; i++)
		;
	snprintf(smp, sizeof(smp), "--smp=%d", i);
	argv[argc++] = smp;
	for (i = 0; p->args[i]; i++)
		argv[argc++] = (char *)p->args[i];
	redirect(p->in, STDIN_FILENO);
	redirect(p->out, STDOUT_FILENO);
	if (p->err)
		redirect(p->err, STDERR_FILENO);
	signal(SIGALRM, SIG_DFL);
	exit(rmvm_main(argc, argv));
}

int machine_wait(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		err(1, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
