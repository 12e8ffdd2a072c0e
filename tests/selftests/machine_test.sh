#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/machine_test.sh
#
# The test machine: nothing of ours runs on its first processor, where QEMU's
# emulation lets a VM die when another processor restores the state of its FPU
# (docs/testing.rst). On the others guests live through that. Runs in the test
# machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

kernel=$(KVER='' tests/vm/vmlinux)
initrd=$(scripts/guest-initrd)
out=$(mktemp)
trap 'rm -f "$out"; kill $(jobs -p) 2>/dev/null || :' EXIT
allowed=$(sed -n 's/^Cpus_allowed_list:\t//p' /proc/self/status)
last=$(($(nproc --all) - 1))

why() { tr -d '\r' <"$out" | tail -n 5 | sed 's/^/# /'; last_exits 10; }

lives() {
	timeout 120 taskset -c "$last" build/vmm/rmvm -k "$kernel" -i "$initrd" -m 128M -b memfd \
		--timeout 100 -a 'quiet rm.do=' </dev/null >"$out" 2>&1
}

record_exits
is "the first processor is left out" same "$allowed" "1-$last"
for ((cpu = 0; cpu < last; cpu++)); do build/selftests/restore_fpu "$cpu" & done
for ((n = 1; n <= 3; n++)); do
	is "a guest lives while the others restore their FPU's state ($n)" lives
done
done_testing
