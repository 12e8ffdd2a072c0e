// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl doctor: from the kernel up, what a guest on restricted memory needs, and
 * what to do where something is missing. Every check stands alone; what cannot be
 * known because of an earlier one is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <restrictedmem_kvm.h>

#include "module.h"

#define DEVICE		"/dev/restrictedmem"
#define KVM_DEVICE	"/dev/kvm"

enum verdict { OK, NOTE, WRONG };

static const char *const verdicts[] = {
	[OK] = "ok",
	[NOTE] = "note",
	[WRONG] = "wrong",
};

struct diagnosis {
	struct json_object *findings;	/* NULL: as text */
	bool ill;
	struct restrictedmem_info info;
	bool has_info;
};

/* One finding, and for what is not well, one line of advice. */
__attribute__((format(printf, 5, 6)))
static void find(struct diagnosis *diagnosis, enum verdict verdict, const char *subject,
		 const char *advice, const char *fmt, ...)
{
	struct json_object *object;
	char text[PATH_MAX + 128];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	diagnosis->ill |= verdict == WRONG;
	if (diagnosis->findings) {
		object = json_object_new_object();
		add_text(object, "subject", subject);
		add_text(object, "verdict", verdicts[verdict]);
		add_text(object, "finding", text);
		if (advice)
			add_text(object, "advice", advice);
		json_object_array_add(diagnosis->findings, object);
		return;
	}
	printf("%-6s %-8s %s\n", verdicts[verdict], subject, text);
	if (advice)
		printf("%15s -> %s\n", "", advice);
}

static void check_kernel(struct diagnosis *diagnosis)
{
	struct utsname name;

	uname(&name);
	if (!strncmp(name.release, "6.1.", 4) && strstr(name.version, "Debian"))
		find(diagnosis, OK, "kernel", NULL, "%s, Debian's", name.release);
	else if (!strncmp(name.release, "6.1.", 4))
		find(diagnosis, NOTE, "kernel", "The patches are made for Debian's source.",
		     "%s, not as Debian builds it", name.release);
	else
		find(diagnosis, WRONG, "kernel", "Boot a 6.1 kernel of Debian 12.",
		     "%s is not supported", name.release);
}

static void check_module(struct diagnosis *diagnosis)
{
	struct module module;

	module_look_up(&module, "restrictedmem");
	if (!module.loaded && *module.path)
		find(diagnosis, WRONG, "module", "As root: modprobe restrictedmem",
		     "not loaded; %s is installed", module.path);
	else if (!module.loaded)
		find(diagnosis, WRONG, "module",
		     "Install restrictedmem-dkms and this kernel's headers, or look at \"dkms status\".",
		     "not loaded, and not installed for this kernel");
	else if (!*module.path)
		find(diagnosis, OK, "module", NULL, "loaded, from a file that is not installed");
	else if (module.same)
		find(diagnosis, OK, "module", NULL, "loaded from %s", module.path);
	else
		find(diagnosis, NOTE, "module",
		     "When no guest runs, unload kvm_amd or kvm_intel, kvm and restrictedmem, and load them again; or reboot.",
		     "loaded, but another build than %s", module.path);
}

/* Why a device cannot be opened; @error: errno of that; @absent: what then to do. */
static void explain_access(struct diagnosis *diagnosis, const char *path, int error,
			   const char *absent)
{
	struct stat st;
	struct group *group;

	if (stat(path, &st)) {
		find(diagnosis, WRONG, "access", absent, "no %s", path);
		return;
	}
	group = getgrgid(st.st_gid);
	if (error == EACCES && st.st_gid && (st.st_mode & 0060) == 0060)
		find(diagnosis, WRONG, "access",
		     "As root: adduser USER GROUP, with the group named here; then log in again.",
		     "%s is for root and the group %s", path, group ? group->gr_name : "?");
	else if (error == EACCES)
		find(diagnosis, WRONG, "access",
		     "Install the udev rule (60-restrictedmem.rules), then: udevadm trigger.",
		     "%s is for root alone", path);
	else
		find(diagnosis, WRONG, "access", "See the kernel's log.", "%s: %s", path,
		     strerror(error));
}

static void check_device(struct diagnosis *diagnosis)
{
	int device = restrictedmem_open(), error = errno;

	if (device < 0) {
		/* Without the module there is none, which was said. */
		if (!access("/sys/module/restrictedmem", F_OK))
			explain_access(diagnosis, DEVICE, error, "Start udev, or mount devtmpfs.");
		return;
	}
	if (restrictedmem_info(device, &diagnosis->info, sizeof(diagnosis->info)))
		find(diagnosis, WRONG, "access", "Library and module do not fit; update both.",
		     "%s does not answer: %s", DEVICE, strerror(errno));
	else
		diagnosis->has_info = true;
	close(device);
	if (diagnosis->has_info)
		find(diagnosis, OK, "access", NULL, "%s, ABI version %u", DEVICE,
		     diagnosis->info.abi_version);
}

static bool cpu_can_virtualise(void)
{
	FILE *info = fopen("/proc/cpuinfo", "re");
	char *line = NULL;
	bool can = false;
	size_t size = 0;

	while (info && !can && getline(&line, &size, info) > 0)
		can = !strncmp(line, "flags", 5) &&
		      (strstr(line, " svm") || strstr(line, " vmx"));
	free(line);
	if (info)
		fclose(info);
	return can;
}

#define RELOAD \
	"When no guest runs, as root: modprobe -r kvm_amd kvm; modprobe kvm_amd (or kvm_intel). Or reboot."

/* A KVM that does not use our module */
static void check_foreign_kvm(struct diagnosis *diagnosis, const struct module *kvm)
{
	const char *what = "a KVM of unknown origin";
	struct utsname name;
	char own[256];

	uname(&name);
	snprintf(own, sizeof(own), "/lib/modules/%s/kernel/arch/x86/kvm/kvm.ko", name.release);
	if (module_is_from(kvm, own))
		what = "the kernel's own KVM";
	if (*kvm->path && !kvm->same)
		find(diagnosis, WRONG, "kvm", RELOAD, "%s is loaded; %s is installed", what,
		     kvm->path);
	else
		find(diagnosis, WRONG, "kvm",
		     "Install restrictedmem-kvm-dkms; if it is, its build failed: see \"dkms status\".",
		     "%s is loaded, and no patched one is installed", what);
}

/* Which KVM is loaded is known from whom it uses. */
static void check_kvm(struct diagnosis *diagnosis)
{
	bool patched = !access("/sys/module/restrictedmem/holders/kvm", F_OK);
	struct module kvm;

	module_look_up(&kvm, "kvm");
	if (kvm.builtin)
		find(diagnosis, WRONG, "kvm", "Boot a kernel that has it as a module, as Debian's.",
		     "built into the kernel, where it cannot be replaced");
	else if (!kvm.loaded && !cpu_can_virtualise())
		find(diagnosis, WRONG, "kvm",
		     "Switch virtualisation on in the firmware, or nesting in the hypervisor.",
		     "the processor offers no virtualisation");
	else if (!kvm.loaded)
		find(diagnosis, WRONG, "kvm", "As root: modprobe kvm_amd (or kvm_intel)",
		     "not loaded");
	else if (!patched)
		check_foreign_kvm(diagnosis, &kvm);
	else if (kvm.same)
		find(diagnosis, OK, "kvm", NULL, "patched, loaded from %s", kvm.path);
	else if (strstr(kvm.path, "/updates/"))
		find(diagnosis, NOTE, "kvm", RELOAD, "patched, but another build than %s",
		     kvm.path);
	else
		find(diagnosis, OK, "kvm", NULL, "patched, from a file that is not installed");
}

static void check_kvm_device(struct diagnosis *diagnosis)
{
	int kvm = open(KVM_DEVICE, O_RDWR | O_CLOEXEC), error = errno, types;

	if (kvm < 0) {
		if (!access("/sys/module/kvm", F_OK))
			explain_access(diagnosis, KVM_DEVICE, error,
				       "As root: modprobe kvm_amd (or kvm_intel); if that fails, see the firmware.");
		return;
	}
	types = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES);
	close(kvm);
	if (types > 0 && types & 1 << KVM_X86_SW_PROTECTED_VM)
		find(diagnosis, OK, "access", NULL, "%s, with KVM_X86_SW_PROTECTED_VM", KVM_DEVICE);
	else
		find(diagnosis, WRONG, "access", "See what was said of kvm.",
		     "%s has no KVM_X86_SW_PROTECTED_VM", KVM_DEVICE);
}

static void check_limit(struct diagnosis *diagnosis)
{
	const struct restrictedmem_info *info = &diagnosis->info;
	char limit[SIZE_TEXT], resident[SIZE_TEXT];

	if (!diagnosis->has_info)
		return;
	size_text(limit, info->limit);
	size_text(resident, info->resident);
	if (!info->limit)
		find(diagnosis, OK, "limit", NULL, "none; %s resident", resident);
	else if (info->resident >= info->limit - info->limit / 16)
		find(diagnosis, WRONG, "limit",
		     "Raise /sys/module/restrictedmem/parameters/limit, or end a guest.",
		     "%s of %s are in use", resident, limit);
	else
		find(diagnosis, OK, "limit", NULL, "%s of %s in use", resident, limit);
}

/* The memory cgroup that we are in, if it has a limit. */
static void check_cgroup(struct diagnosis *diagnosis)
{
	char group[512], path[600], limit[32];

	if (!read_text("/proc/self/cgroup", group, sizeof(group)) || strncmp(group, "0::", 3))
		return;
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group + 3);
	if (!read_text(path, limit, sizeof(limit)) || !strcmp(limit, "max"))
		return;
	find(diagnosis, NOTE, "limit", "Guests are charged to it; raise it if one is killed.",
	     "%s is %s", path, limit);
}

static void check_huge_pages(struct diagnosis *diagnosis)
{
	uint64_t sizes = diagnosis->info.page_sizes[RESTRICTEDMEM_STORE_HUGETLB];
	char path[128], number[32], text[SIZE_TEXT];
	unsigned int bit;

	if (!diagnosis->has_info)
		return;
	if (diagnosis->info.features & RESTRICTEDMEM_FEATURE_THP)
		find(diagnosis, OK, "thp", NULL, "guests get transparent huge pages");
	else
		find(diagnosis, NOTE, "thp",
		     "Look at /sys/kernel/mm/transparent_hugepage/shmem_enabled.",
		     "guests get small pages only, which are slower");
	for (bit = 10; bit < 64; bit++) {
		if (!(sizes >> bit & 1))
			continue;
		snprintf(path, sizeof(path),
			 "/sys/kernel/mm/hugepages/hugepages-%llukB/free_hugepages",
			 1ULL << (bit - 10));
		if (read_text(path, number, sizeof(number)))
			find(diagnosis, OK, "pool", NULL, "%s pages of %s are free", number,
			     size_text(text, 1ULL << bit));
	}
}

static int run_doctor(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct diagnosis diagnosis = {};
	int option, r;

	while ((option = getopt_long(argc, argv, "jh", options, NULL)) >= 0) {
		switch (option) {
		case 'j':
			diagnosis.findings = json_object_new_array();
			break;
		case 'h':
			return show_help(command);
		default:
			return bad_option(command);
		}
	}
	r = no_more_arguments(command, argc - optind, argv + optind);
	if (r)
		return r;

	check_kernel(&diagnosis);
	check_module(&diagnosis);
	check_device(&diagnosis);
	check_kvm(&diagnosis);
	check_kvm_device(&diagnosis);
	check_limit(&diagnosis);
	check_cgroup(&diagnosis);
	check_huge_pages(&diagnosis);

	if (diagnosis.findings)
		r = print_json(diagnosis.findings);
	else
		puts(diagnosis.ill ? "Guests on restricted memory do not work here." :
				     "Guests on restricted memory work here.");
	if (!r && fflush(stdout))
		r = fail_errno("standard output");
	return r ? r : diagnosis.ill;
}

const struct command doctor_command = {
	.name = "doctor",
	.summary = "why does it not work here?",
	.help = "Usage: rmctl doctor [--json]\n"
		"Looks at the kernel, the module, KVM, permissions and limits, as the user who\n"
		"calls it, and says what to do where something is wrong. Nothing is changed.\n"
		"\n"
		"  -j, --json   for programs\n"
		"  -h, --help\n"
		"\n"
		"Exits with 0 if all is well, else with 1. A note is nothing wrong.\n"
		"\n"
		"  rmctl doctor && rmctl run --kernel /vmlinuz\n",
	.run = run_doctor,
};
