// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What happened: our own counts, KVM's (KVM_GET_STATS_FD: one file of binary
 * statistics for the VM and one for each vCPU), and the memory file's. To be
 * sampled when the vCPUs have stopped and before anything is taken down.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rmvm.h"

static const char *const exit_names[MAX_EXIT_REASON] = {
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail_entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_INTERNAL_ERROR] = "internal_error",
	[KVM_EXIT_SYSTEM_EVENT] = "system_event",
	[KVM_EXIT_MEMORY_FAULT] = "memory_fault",
};

static const char *const backing_names[] = {
	[BACKING_RESTRICTED] = "restricted",
	[BACKING_IN_PLACE] = "in-place",
	[BACKING_GUEST_MEMFD] = "guest_memfd",
	[BACKING_MEMFD] = "memfd",
};

/* One statistic that we look for in a statistics file */
struct wanted {
	const char *name;
	u64 *sum;
};

/*
 * The file is a header, an array of descriptors that each end with a name of
 * header.name_size bytes, and the values.
 */
static void add_kvm_stats(int owner, const struct wanted *wanted, size_t nr_wanted)
{
	int fd = ioctl(owner, KVM_GET_STATS_FD, NULL);
	struct kvm_stats_desc *desc = NULL;
	struct kvm_stats_header header;
	u64 value;
	size_t desc_size, w;
	u32 i;

	if (fd < 0)
		return;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		goto out_close;
	desc_size = sizeof(*desc) + header.name_size;
	desc = malloc(desc_size);
	for (i = 0; desc && i < header.num_desc; i++) {
		if (pread(fd, desc, desc_size, header.desc_offset + i * desc_size) !=
		    (ssize_t)desc_size)
			break;
		for (w = 0; w < nr_wanted; w++)
			if (!strcmp(desc->name, wanted[w].name) &&
			    pread(fd, &value, sizeof(value), header.data_offset + desc->offset) ==
			    sizeof(value))
				*wanted[w].sum += value;
	}
	free(desc);
out_close:
	close(fd);
}

void stats_sample(struct vm *vm)
{
	struct counts *counts = &vm->counts;
	const struct wanted of_vm[] = {
		{ "pages_4k", &counts->pages_4k },
		{ "pages_2m", &counts->pages_2m },
		{ "pages_1g", &counts->pages_1g },
	};
	const struct wanted of_vcpu[] = {
		{ "pf_taken", &counts->faults_taken },
		{ "pf_fixed", &counts->faults_fixed },
	};
	unsigned int i, reason;
	struct stat st;

	counts->seconds_total = now() - vm->start;
	add_kvm_stats(vm->fd, of_vm, ARRAY_SIZE(of_vm));
	for (i = 0; i < vm->opt->smp; i++) {
		add_kvm_stats(vm->vcpus[i].fd, of_vcpu, ARRAY_SIZE(of_vcpu));
		for (reason = 0; reason < MAX_EXIT_REASON; reason++)
			counts->exits[reason] += vm->vcpus[i].exits[reason];
	}
	if (!fstat(vm->mem_fd, &st))
		counts->resident = st.st_blocks * 512ULL;
}

static void print_count(FILE *to, const char *key, u64 value)
{
	fprintf(to, "%s: %llu\n", key, value);
}

void stats_print(struct vm *vm, FILE *to)
{
	const struct counts *counts = &vm->counts;
	unsigned int i;

	fprintf(to, "backing: %s\n", backing_names[vm->opt->backing]);
	print_count(to, "memory_bytes", vm->opt->memory);
	print_count(to, "resident_bytes", counts->resident);
	fprintf(to, "seconds: %.3f\n", counts->seconds_total);
	fprintf(to, "seconds_loader: %.3f\n", counts->seconds_loader);
	print_count(to, "faults_taken", counts->faults_taken);
	print_count(to, "faults_fixed", counts->faults_fixed);
	print_count(to, "mapped_4k", counts->pages_4k);
	print_count(to, "mapped_2m", counts->pages_2m);
	print_count(to, "mapped_1g", counts->pages_1g);
	print_count(to, "converted_to_shared_pages", counts->to_shared);
	print_count(to, "converted_to_private_pages", counts->to_private);
	print_count(to, "conversions_busy", counts->conversions_busy);
	print_count(to, "windows", counts->windows);
	print_count(to, "discarded_pages", counts->discarded);
	for (i = 0; i < MAX_EXIT_REASON; i++) {
		if (counts->exits[i] && exit_names[i])
			fprintf(to, "exits_%s: %llu\n", exit_names[i], counts->exits[i]);
		else if (counts->exits[i])
			fprintf(to, "exits_%u: %llu\n", i, counts->exits[i]);
	}
}

/* What the kernel says of the memory file */
void stats_fdinfo(struct vm *vm, FILE *to)
{
	char path[64], line[256];
	FILE *from;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", vm->mem_fd);
	from = fopen(path, "re");
	if (!from) {
		fail_errno("%s", path);
		return;
	}
	while (fgets(line, sizeof(line), from))
		fprintf(to, "fdinfo %s", line);
	fclose(from);
}
