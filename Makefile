# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# What people type; the kernel's build reads Kbuild instead. Passed through:
#   KVER=release or KDIR=headers   the kernel to build for (newest Debian 6.1)
#   V=1  W=1  C=1                  as in the kernel: verbose, warnings, sparse
#   DESTDIR=  PREFIX=/usr          where install puts things

# Looked up when needed: "make check" begins where there are no headers yet.
ifdef KDIR
KVER ?= $(shell cat $(KDIR)/include/config/kernel.release)
else
KVER ?= $(shell scripts/kver)
KDIR = /lib/modules/$(KVER)/build
endif
PREFIX ?= /usr
VERSION := $(shell cat VERSION)

moddir = $(DESTDIR)/lib/modules/$(KVER)/updates/restrictedmem
system-files := packaging/60-restrictedmem.rules:udev/rules.d/60-restrictedmem.rules \
	packaging/modprobe.conf:modprobe.d/restrictedmem.conf \
	packaging/modules-load.conf:modules-load.d/restrictedmem.conf
kvm-modules = $(wildcard $(addprefix build/kvm-$(KVER)/,kvm.ko kvm-amd.ko kvm-intel.ko))
man-pages := $(wildcard docs/man/*.[1-9] vmm/*.[1-9])

# All processors, unless the caller said how many.
jobs = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

all: modules kvm vmm tools ## build everything (make check installs what that needs)

modules: ## build restrictedmem.ko
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

kvm: modules ## build the patched KVM, in build/kvm-KVER
	KVER=$(KVER) KDIR=$(KDIR) scripts/build-kvm

vmm: ## build the small VMM and its companions, in build/vmm
	$(MAKE) -C vmm

lib: ## build librestrictedmem, in build/lib
	$(MAKE) -C lib

tools: lib ## build rmctl, in build/tools
	$(MAKE) -C tools

tests: modules tools vmm
	$(MAKE) -C tests/kmod KVER=$(KVER) KDIR=$(KDIR)
	$(MAKE) -C tests/selftests
	$(MAKE) -C tests/race
	$(MAKE) -C tests/fuzz
	$(MAKE) -C tests/unit
	$(MAKE) -C samples/consumer KVER=$(KVER) KDIR=$(KDIR) RM_SDK=$(CURDIR)
	MAKEFLAGS= scripts/guest-initrd --modules >/dev/null

demo: ## install packages, build, and show a VM whose memory nobody can read
	@scripts/deps check
	@$(MAKE) $(jobs) --no-print-directory all
	@scripts/demo

demo-window: ## show what another process sees of pages that a guest shares
	@scripts/deps check
	@$(MAKE) $(jobs) --no-print-directory all
	@scripts/demo-window

check: ## install packages, build, and run all tests (in virtual machines)
	@scripts/deps check
	@$(MAKE) $(jobs) --no-print-directory all tests
	@tests/run

test: check ## the same as check

check-kvm: ## compare KVM's own selftests on stock and patched KVM (some 20 minutes)
	@scripts/deps check
	@$(MAKE) $(jobs) --no-print-directory modules kvm vmm
	@scripts/kvm-selftests

check-debug: ## run the tests on a kernel that looks for faults (an hour)
	@scripts/deps debug
	@scripts/check-debug

check-debug-quick: ## the same without what takes longest there, as CI has it
	@scripts/deps debug
	@scripts/check-debug --quick

lab: ## look for races and more by chance (two hours, or LAB_MINUTES)
	@scripts/deps check debug
	@$(MAKE) $(jobs) --no-print-directory all tests
	@scripts/lab

lab-quick: ## the same in less than six minutes, as "make check" has it
	@scripts/deps check
	@$(MAKE) $(jobs) --no-print-directory all tests
	@scripts/lab -q

bench: ## install packages, build, and compare costs with peers (in a virtual machine)
	@scripts/deps bench
	@$(MAKE) $(jobs) --no-print-directory modules kvm
	@$(MAKE) $(jobs) --no-print-directory -C tests/kmod KVER=$(KVER) KDIR=$(KDIR)
	@bench/run

check-qemu: ## build QEMU with our series, and run guests in it
	@scripts/deps check qemu
	@$(MAKE) $(jobs) --no-print-directory all
	@tests/qemu/run

demo-qemu: ## build QEMU with our series, and show firmware and Linux in it
	@scripts/deps check qemu
	@$(MAKE) $(jobs) --no-print-directory all
	@scripts/demo-qemu

lint: ## install the checkers' packages and run all static checks
	@scripts/deps lint
	@scripts/lint

install: install-modules install-tools ## install what "make all" built
	$(if $(DESTDIR),,depmod $(KVER))
	$(if $(DESTDIR),,ldconfig)

# With what other modules are built against, and what the system does with them
install-modules:
	install -D -m 644 -t $(moddir) restrictedmem.ko $(kvm-modules) Module.symvers
	install -D -m 644 -t $(moddir)/include/linux $(wildcard include/linux/*.h)
	$(foreach f,$(system-files),install -D -m 644 $(firstword $(subst :, ,$f)) \
		$(DESTDIR)$(PREFIX)/lib/$(lastword $(subst :, ,$f)) &&) :

install-tools:
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include $(wildcard include/uapi/*.h)
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin build/vmm/rmvm
	$(MAKE) -C lib install PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	$(MAKE) -C tools install PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	$(foreach m,$(man-pages),install -D -m 644 -t \
		$(DESTDIR)$(PREFIX)/share/man/man$(subst .,,$(suffix $m)) $m &&) :

uninstall: ## remove what install put there
	rm -rf $(moddir)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/,$(foreach f,$(system-files),$(lastword \
		$(subst :, ,$f))))
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/include/,$(notdir $(wildcard include/uapi/*.h)))
	rm -f $(DESTDIR)$(PREFIX)/bin/rmvm
	$(MAKE) -C lib uninstall PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	$(MAKE) -C tools uninstall PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)
	rm -f $(foreach m,$(man-pages),$(DESTDIR)$(PREFIX)/share/man/man$(subst \
		.,,$(suffix $m))/$(notdir $m))
	$(if $(DESTDIR),,depmod $(KVER))

dkms-install: ## hand the source to DKMS, which builds it for each new kernel
	@scripts/deps build kvm dkms
	packaging/dkms-tree restrictedmem /usr/src/restrictedmem-$(VERSION)
	packaging/dkms-tree restrictedmem-kvm /usr/src/restrictedmem-kvm-$(VERSION)
	dkms install --force restrictedmem/$(VERSION) -k $(KVER)
	dkms install --force restrictedmem-kvm/$(VERSION) -k $(KVER)

deb: ## build the Debian packages, in build/deb
	@scripts/deps deb
	@packaging/build-deb

check-packages: ## install, upgrade and purge the packages on a Debian of their own
	@scripts/deps packages
	@tests/packages/run

clean: ## remove all that was built (the cache outside the clone stays)
	rm -rf build .checkpatch-camelcase.*
	[ ! -d $(KDIR) ] || $(MAKE) -C $(KDIR) M=$(CURDIR) clean
	[ ! -d $(KDIR) -o ! -d tests/kmod ] || \
		$(MAKE) -C tests/kmod KVER=$(KVER) KDIR=$(KDIR) clean
	[ ! -d $(KDIR) ] || $(MAKE) -C samples/consumer KVER=$(KVER) KDIR=$(KDIR) clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile
	@sed -n '/^#   [A-Z]/s/^#   //p' Makefile

# tests/vm/run builds it when it needs it, perhaps twice at a time.
build/vm/keeper: tests/vm/keeper.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -static -o $@.$$$$ $< && mv $@.$$$$ $@

.PHONY: all modules kvm vmm lib tools tests demo demo-qemu demo-window check test check-kvm \
	check-debug check-debug-quick check-qemu lab lab-quick bench lint install install-modules install-tools uninstall \
	dkms-install deb check-packages clean help
