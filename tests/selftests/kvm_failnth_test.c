// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Every allocation and every copy from or to the caller fails once: a call is
 * made again and again, and the kernel lets its first, second, third ... of
 * them fail, until it needs no more. Each time it succeeds, or it fails with an
 * errno that says so and has changed nothing; and nothing is left behind.
 * Leaks of memory are found by kmemleak when all programs have run.
 *
 * Needs fault injection, and so the debug kernel (tests/vm/debug.config).
 *
 * A call more is one SWEEP() more.
 */
#include "kselftest_harness.h"
#include "consumer.h"
#include "hugetlb.h"
#include "kvm_util.h"
#include "window.h"

#define SIZE		(16 * PAGE)
#define SLOT		1
#define DEBUGFS		"/sys/kernel/debug"

/* Flags of SWEEP() */
#define STOPS_HALFWAY	1	/* an error leaves what was done before */
#define GOES_ON		2	/* may do without memory, or need none */
#define SAYS_ENOSPC	4	/* hugetlbfs has one errno for both */

/*
 * What the calls work on. The files are new in each round, and belong to
 * nobody.
 */
struct things {
	int fail_nth;
	int device;
	int c;			/* a consumer */
	int id;			/* its binding, where there is one */
	int small;		/* SIZE bytes */
	int huge;		/* one huge page */
	int pooled;		/* one page of the pool */
	int sizeless;
	int in_place;		/* SIZE bytes that can be shared */
	int win;		/* a window, where there is one */
	long pool;		/* how many pages it had */
	struct vm vm;
	struct vcpu vcpu;
	char *hva;		/* HUGE bytes */
	char *data;		/* so many, a different word in each page */
	char *buf;		/* so many */
	int wrong;		/* what an undo() found that is not as it must be */
};

/* What must not change when a call fails, nor from round to round. */
struct state {
	uint64_t total;
	uint64_t module_refs;
	uint64_t kvm_refs;
	uint64_t pool_free;
	uint64_t pool_reserved;
	uint64_t next_fd;
	uint64_t size;
	uint64_t small_resident;
	uint64_t huge_resident;
	uint64_t pooled_resident;
	uint64_t small_bindings;
	uint64_t huge_bindings;
	uint64_t small_owner;
	uint64_t huge_owner;
	uint64_t shared;
	uint64_t windows;
};

FIXTURE(sweep) {
	struct things t;
};

static struct state look(struct things *t)
{
	struct state s = {
		.total = resident_total(),
		.module_refs = module_refs("restrictedmem"),
		.kvm_refs = module_refs("kvm"),
		.pool_free = pool_count(HUGE, "free_hugepages"),
		.pool_reserved = pool_count(HUGE, "resv_hugepages"),
		.next_fd = dup(t->device),
	};
	struct stat st = {};

	close(s.next_fd);
	if (t->small < 0)
		return s;
	fstat(t->sizeless, &st);
	s.size = st.st_size;
	s.small_resident = resident(t->small);
	s.huge_resident = resident(t->huge);
	s.pooled_resident = resident(t->pooled);
	s.small_bindings = fdinfo_number(t->small, "bindings");
	s.huge_bindings = fdinfo_number(t->huge, "bindings");
	s.small_owner = fdinfo_number(t->small, "owner");
	s.huge_owner = fdinfo_number(t->huge, "owner");
	s.shared = fdinfo_number(t->in_place, "shared");
	s.windows = fdinfo_number(t->in_place, "windows");
	return s;
}

/* Print what differs; some of the end is done by others, a little later. */
static int differences(struct things *t, const struct state *before, int wait)
{
	static const char * const names[] = {
		"total", "module_refs", "kvm_refs", "pool_free",
		"pool_reserved", "next_fd", "size", "small_resident",
		"huge_resident", "pooled_resident", "small_bindings",
		"huge_bindings", "small_owner", "huge_owner", "shared",
		"windows",
	};
	struct state now = look(t);
	const uint64_t *a = (void *)before, *b = (void *)&now;
	int found = 0;

	while (wait-- && memcmp(&now, before, sizeof(now))) {
		sleep_ms(10);
		now = look(t);
	}
	for (int i = 0; i < sizeof(now) / sizeof(*a); i++) {
		if (a[i] == b[i])
			continue;
		found++;
		fprintf(stderr, "# %s was %lld, is %lld\n", names[i],
			(long long)a[i], (long long)b[i]);
	}
	return found;
}

static void files_open(struct things *t)
{
	t->small = create_small(SIZE);
	t->huge = create_huge(HUGE);
	t->pooled = create_pooled(HUGE, HUGE, 0);
	t->sizeless = create_small(0);
	t->in_place = create_flagged(SIZE, RESTRICTEDMEM_CREATE_IN_PLACE);
}

static void files_close(struct things *t)
{
	int *fds[] = { &t->small, &t->huge, &t->pooled, &t->sizeless,
			&t->in_place };

	for (int i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static void arm(struct things *t, int n)
{
	dprintf(t->fail_nth, "%d", n);
}

/* Return: has it failed? If this very read did, then nothing before. */
static bool disarm(struct things *t)
{
	char left[16] = "";
	bool hit = pread(t->fail_nth, left, sizeof(left) - 1, 0) > 0 &&
		   atoi(left) == 0;

	while (pwrite(t->fail_nth, "0", 1, 0) != 1)
		;
	return hit;
}

static void sweep(struct __test_metadata *_metadata, struct things *t,
		  int flags, void (*prepare)(struct things *t),
		  int (*call)(struct things *t),
		  void (*undo)(struct things *t, int r))
{
	const struct state start = look(t);
	int n = -1, errors = 0, r, error;
	struct state before;
	bool hit;

	do {
		n++;
		files_open(t);
		ASSERT_TRUE(t->small >= 0 && t->huge >= 0 &&
			    t->pooled >= 0 && t->sizeless >= 0 &&
			    t->in_place >= 0);
		prepare(t);
		before = look(t);

		arm(t, n);
		errno = 0;
		r = call(t);
		error = errno;
		hit = disarm(t);

		if (r < 0) {
			errors++;
			if (error != ENOMEM && error != EFAULT &&
			    (error != ENOSPC || !(flags & SAYS_ENOSPC)))
				EXPECT_EQ(ENOMEM, error);
			if (!(flags & STOPS_HALFWAY))
				EXPECT_EQ(0, differences(t, &before, 0));
		}
		undo(t, r);
		EXPECT_EQ(0, t->wrong);
		files_close(t);
		EXPECT_EQ(0, differences(t, &start, 200));
		if (!_metadata->passed) {
			TH_LOG("the call that failed was number %d", n);
			return;
		}
		/* Round 0 fails nothing, but has the program's own page faults. */
	} while (!n || hit);

	printf("# %s: %d rounds, %d errors\n", _metadata->name, n, errors);
	fflush(stdout);
	/* The last round is that of no failure. */
	EXPECT_LE(0, r);
	if (!(flags & GOES_ON))
		EXPECT_LT(0, errors);
}

#define NOTHING		((void)t)

/*
 * One call: flags, what comes before it, itself (-1 is an error), and what
 * takes it back, whether it failed or not; @r is what it returned.
 */
#define SWEEP(_name, _flags, _prepare, _call, _undo)			\
static void prepare_##_name(struct things *t) { _prepare; }		\
static int call_##_name(struct things *t) { return _call; }		\
static void undo_##_name(struct things *t, int r) { _undo; }		\
TEST_F_TIMEOUT(sweep, _name, 1200)					\
{									\
	sweep(_metadata, &self->t, _flags, prepare_##_name,		\
	      call_##_name, undo_##_name);				\
}

/* The machinery's own, once for all */
static int inject_init(void)
{
	return write_text(DEBUGFS "/failslab/ignore-gfp-wait", "N") |
	       write_text(DEBUGFS "/failslab/verbose", "0") |
	       write_text(DEBUGFS "/fail_page_alloc/ignore-gfp-wait", "N") |
	       write_text(DEBUGFS "/fail_page_alloc/ignore-gfp-highmem", "N") |
	       write_text(DEBUGFS "/fail_page_alloc/min-order", "0") |
	       write_text(DEBUGFS "/fail_page_alloc/verbose", "0") |
	       write_text(DEBUGFS "/fail_usercopy/verbose", "0");
}

FIXTURE_SETUP(sweep)
{
	struct things *t = &self->t;

	ASSERT_EQ(0, inject_init()) TH_LOG("no fault injection here");
	t->fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, t->fail_nth);
	t->device = device_open();
	ASSERT_LE(0, t->device);
	t->c = consumer_open();
	ASSERT_LE(0, t->c);
	t->small = t->huge = t->pooled = t->sizeless = t->in_place = -1;
	/* What others have lost to memory errors stays. */
	t->pool = pool_resize(HUGE, 0);
	ASSERT_EQ(t->pool + 2, pool_resize(HUGE, t->pool + 2));
	vm_create(&t->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&t->vm, &t->vcpu, 0);
	t->hva = map_anonymous(HUGE);
	t->data = map_anonymous(HUGE);
	t->buf = map_anonymous(HUGE);
	memset(t->hva, 0, HUGE);
	memset(t->buf, 0, HUGE);
	for (int i = 0; i < HUGE_PAGES; i++)
		fill_page((uint64_t *)(t->data + i * PAGE), i + 1);
}

FIXTURE_TEARDOWN(sweep)
{
	struct things *t = &self->t;

	EXPECT_EQ(0, violations(t->c));
	vcpu_destroy(&t->vcpu);
	vm_destroy(&t->vm);
	close(t->c);
	close(t->device);
	close(t->fail_nth);
	EXPECT_EQ(t->pool, pool_resize(HUGE, 0));
}

/* Calls on the device */

static int info(struct things *t)
{
	struct restrictedmem_info info = { .size = sizeof(info) };

	return ioctl(t->device, RESTRICTEDMEM_INFO, &info);
}

static int make(struct things *t, struct restrictedmem_create args)
{
	args.size = sizeof(args);
	return ioctl(t->device, RESTRICTEDMEM_CREATE, &args);
}

#define CREATE(...)	make(t, (struct restrictedmem_create) { __VA_ARGS__ })

SWEEP(info, 0, NOTHING, info(t), NOTHING)
SWEEP(create, 0, NOTHING, CREATE(.length = SIZE), close(r))
SWEEP(create_without_size, 0, NOTHING, CREATE(), close(r))
SWEEP(create_huge, 0, NOTHING,
	CREATE(.length = HUGE, .thp = RESTRICTEDMEM_THP_ALWAYS), close(r))
SWEEP(create_small, 0, NOTHING,
	CREATE(.length = SIZE, .thp = RESTRICTEDMEM_THP_NEVER), close(r))
SWEEP(create_aliases, 0, NOTHING,
	CREATE(.length = SIZE, .flags = RESTRICTEDMEM_CREATE_ALIASES), close(r))
SWEEP(create_views, 0, NOTHING,
	CREATE(.length = SIZE, .flags = RESTRICTEDMEM_CREATE_VIEWS), close(r))
SWEEP(create_with_policy, 0, NOTHING,
	CREATE(.length = SIZE, .numa = RESTRICTEDMEM_NUMA_INTERLEAVE, .nodes = 1),
	close(r))
SWEEP(create_pooled, 0, NOTHING,
	CREATE(.length = HUGE, .page_size = HUGE,
	       .store = RESTRICTEDMEM_STORE_HUGETLB), close(r))
SWEEP(create_reserved, SAYS_ENOSPC, NOTHING,
	CREATE(.length = HUGE, .page_size = HUGE,
	       .store = RESTRICTEDMEM_STORE_HUGETLB,
	       .flags = RESTRICTEDMEM_CREATE_RESERVE), close(r))

/* Calls on a file */

static bool is_zero(const char *page)
{
	static const char zeros[PAGE];

	return !memcmp(page, zeros, PAGE);
}

/* Bind the huge file and fill it. */
static void fill_huge(struct things *t)
{
	t->id = bind_range(t->c, t->huge, 0, HUGE_PAGES);
	CHECK(t->id >= 0);
	CHECK(!write_data(t->c, t->id, 0, t->data, MIB));
	CHECK(!write_data(t->c, t->id, MIB, t->data + MIB, MIB));
}

/*
 * Is it as it was, but for the pages [start, end), which are zeros? What could
 * not be split is still there, but reads so.
 */
static void check_huge(struct things *t, int start, int end)
{
	uint64_t now = resident(t->huge);

	t->wrong += now != HUGE && now != HUGE - (end - start) * PAGE;
	t->wrong += read_data(t->c, t->id, 0, t->buf, MIB) != 0;
	t->wrong += read_data(t->c, t->id, MIB, t->buf + MIB, MIB) != 0;
	for (int i = 0; i < HUGE_PAGES; i++) {
		const char *page = t->buf + i * PAGE;

		t->wrong += i >= start && i < end ? !is_zero(page) :
			    memcmp(page, t->data + i * PAGE, PAGE) != 0;
	}
	unbind(t->c, t->id);
}

static int close_of(int *fd)
{
	int r = close(*fd);

	*fd = -1;
	return r;
}

SWEEP(set_size, 0, NOTHING, ftruncate(t->sizeless, SIZE), NOTHING)
SWEEP(link, 0, NOTHING, link_view(t->small), close(r))
SWEEP(populate, STOPS_HALFWAY, NOTHING, populate(t->small, 0, SIZE), NOTHING)
SWEEP(populate_huge, STOPS_HALFWAY | GOES_ON, NOTHING, populate(t->huge, 0, HUGE), NOTHING)
SWEEP(populate_pooled, STOPS_HALFWAY | GOES_ON, NOTHING, populate(t->pooled, 0, HUGE),
	NOTHING)
SWEEP(punch_pooled, GOES_ON, populate(t->pooled, 0, HUGE),
	punch(t->pooled, 0, HUGE), t->wrong += resident(t->pooled) != (r ? HUGE : 0))
SWEEP(close_pooled, GOES_ON, populate(t->pooled, 0, HUGE),
	close_of(&t->pooled), files_close(t))
SWEEP(punch, GOES_ON, populate(t->small, 0, SIZE),
	punch(t->small, PAGE, 3 * PAGE),
	t->wrong += resident(t->small) != SIZE - (r ? 0 : 3 * PAGE))
SWEEP(punch_whole_huge_page, GOES_ON, populate(t->huge, 0, HUGE),
	punch(t->huge, 0, HUGE), t->wrong += resident(t->huge) != (r ? HUGE : 0))
SWEEP(punch_part_of_huge_page, GOES_ON, fill_huge(t),
	punch(t->huge, 3 * PAGE, 4 * PAGE), check_huge(t, 3, r ? 3 : 7))
SWEEP(close_small, GOES_ON, populate(t->small, 0, SIZE),
	close_of(&t->small), files_close(t))
SWEEP(close_huge, GOES_ON, populate(t->huge, 0, HUGE), close_of(&t->huge),
	files_close(t))

/* Sharing */

static int share(struct things *t, int start, int end, bool private)
{
	return convert(t->in_place, start * PAGE, (end - start) * PAGE,
		       private ? PRIVATE : SHARED, 0);
}

static void has_shared(struct things *t, int pages)
{
	t->wrong += fdinfo_number(t->in_place, "shared") != pages * PAGE;
}

#define WINDOW	open_window(t->in_place, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE)

SWEEP(create_in_place, 0, NOTHING,
	CREATE(.length = SIZE, .flags = RESTRICTEDMEM_CREATE_IN_PLACE), close(r))
SWEEP(share, 0, NOTHING, share(t, 1, 3, false), has_shared(t, r ? 0 : 2))
SWEEP(take_back_some, 0, CHECK(!share(t, 0, 16, false)), share(t, 4, 8, true),
	has_shared(t, r ? 16 : 12))
SWEEP(take_back_from_window, 0,
	CHECK(!share(t, 0, 16, false)); t->win = WINDOW;
	CHECK(!populate(t->in_place, 0, SIZE)), share(t, 4, 8, true),
	close(t->win); has_shared(t, r ? 16 : 12))
SWEEP(window, 0, NOTHING, WINDOW, close(r))
SWEEP(revoke, GOES_ON, t->win = WINDOW, revoke_window(t->in_place, -1), close(t->win))
SWEEP(close_with_window, GOES_ON, t->win = WINDOW, close_of(&t->in_place),
	close(t->win); files_close(t))

/* A consumer's calls */

static int get(struct things *t, uint32_t flags)
{
	struct rmt_page page;

	return get_page(t->c, t->id, 3, flags, &page);
}

#define BOUND	(t->id = bind_range(t->c, t->small, 0, 16))

SWEEP(bind, 0, NOTHING, bind_range(t->c, t->small, 0, 16), unbind(t->c, r))
SWEEP(get_pfn, STOPS_HALFWAY, BOUND, get(t, 0), unbind(t->c, t->id))
SWEEP(map_pfn, STOPS_HALFWAY, BOUND, get(t, RMT_GET_MAP), unbind(t->c, t->id))
SWEEP(hold_pfn, STOPS_HALFWAY, BOUND, get(t, RMT_GET_HOLD), unbind(t->c, t->id))
SWEEP(read, STOPS_HALFWAY, BOUND, read_data(t->c, t->id, 0, t->buf, 2 * PAGE),
	unbind(t->c, t->id))
SWEEP(write, STOPS_HALFWAY, BOUND, write_data(t->c, t->id, 0, t->data, 2 * PAGE),
	unbind(t->c, t->id))
SWEEP(unbind, STOPS_HALFWAY, BOUND, unbind(t->c, t->id), unbind(t->c, t->id))
SWEEP(cancel, STOPS_HALFWAY, BOUND, cancel(t->c, t->id), unbind(t->c, t->id))

/* KVM's calls */

static int guest_memfd(struct things *t)
{
	struct kvm_create_guest_memfd args = { .size = SIZE };

	return ioctl(t->vm.fd, KVM_CREATE_GUEST_MEMFD, &args);
}

static int add_slot(struct things *t, int fd, uint64_t size)
{
	return vm_region2(&t->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, size, t->hva,
			  fd, 0);
}

static int delete_slot(struct things *t)
{
	return vm_region(&t->vm, SLOT, 0, 0, NULL);
}

static int set_private(struct things *t, int start, int end, bool private)
{
	return vm_set_private(&t->vm, DATA + start * PAGE, (end - start) * PAGE,
			      private);
}

static int pre_fault(struct things *t, int start, int end)
{
	struct kvm_pre_fault_memory range = {
		.gpa = DATA + start * PAGE,
		.size = (end - start) * PAGE,
	};

	return ioctl(t->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range);
}

static void no_slot(struct things *t)
{
	delete_slot(t);
	CHECK(!set_private(t, 0, HUGE_PAGES, false));
}

static void private_slot(struct things *t, int fd, uint64_t size)
{
	CHECK(!add_slot(t, fd, size));
	CHECK(!set_private(t, 0, size / PAGE, true));
}

/* The file gets a page where a gfn that is private is touched. */
static void check_shared(struct things *t, int start, int end)
{
	for (int i = 0; i < SIZE / PAGE; i++) {
		uint64_t before = resident(t->small);

		CHECK(!pre_fault(t, i, i + 1));
		t->wrong += resident(t->small) - before !=
			    (i >= start && i < end ? 0 : PAGE);
	}
	no_slot(t);
}

/* A guest whose fault was not served goes on when it is run again. */
static void start_guest(struct things *t)
{
	private_slot(t, t->small, SIZE);
	vcpu_start(&t->vcpu, write_word, DATA + PAGE, 1, 0);
}

static void end_guest(struct things *t, int r)
{
	if (r)
		vcpu_done(&t->vcpu);
	no_slot(t);
}

static int run(struct things *t)
{
	return ioctl(t->vcpu.fd, KVM_RUN, 0);
}

static void map_small(struct things *t)
{
	private_slot(t, t->small, SIZE);
	CHECK(!pre_fault(t, 0, SIZE / PAGE));
}

static int create_vm(struct things *t)
{
	return ioctl(t->vm.kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
}

#define SLOT_SMALL	private_slot(t, t->small, SIZE)
#define SLOT_HUGE	private_slot(t, t->huge, HUGE)

SWEEP(create_guest_memfd, 0, NOTHING, guest_memfd(t), close(r))
SWEEP(add_slot, 0, NOTHING, add_slot(t, t->small, SIZE), no_slot(t))
SWEEP(add_slot_of_huge_page, 0, NOTHING, add_slot(t, t->huge, HUGE), no_slot(t))
SWEEP(add_slot_of_pool, 0, NOTHING, add_slot(t, t->pooled, HUGE), no_slot(t))
SWEEP(delete_slot, 0, SLOT_SMALL, delete_slot(t), no_slot(t))
SWEEP(set_private, 0, CHECK(!add_slot(t, t->small, SIZE)),
	set_private(t, 0, 16, true),
	check_shared(t, 0, r ? 16 : 0))
SWEEP(set_some_shared, 0, SLOT_SMALL, set_private(t, 4, 8, false),
	check_shared(t, 4, r ? 4 : 8))
SWEEP(pre_fault, STOPS_HALFWAY, SLOT_SMALL, pre_fault(t, 0, 16), no_slot(t))
SWEEP(pre_fault_huge_page, STOPS_HALFWAY, SLOT_HUGE,
	pre_fault(t, 0, HUGE_PAGES), no_slot(t))
SWEEP(pre_fault_pool, STOPS_HALFWAY, private_slot(t, t->pooled, HUGE),
	pre_fault(t, 0, HUGE_PAGES), no_slot(t))
/* A guest's fault insists on memory. */
SWEEP(run, STOPS_HALFWAY | GOES_ON, start_guest(t), run(t), end_guest(t, r))
SWEEP(punch_mapped_page, GOES_ON, map_small(t), punch(t->small, 0, PAGE),
	no_slot(t))
SWEEP(add_slot_in_place, 0, NOTHING, add_slot(t, t->in_place, SIZE), no_slot(t))
SWEEP(set_some_shared_in_place, STOPS_HALFWAY, private_slot(t, t->in_place, SIZE),
	set_private(t, 4, 8, false), no_slot(t))
SWEEP(create_vm, 0, NOTHING, create_vm(t), close(r))

TEST_HARNESS_MAIN
