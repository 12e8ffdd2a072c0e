#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/linux_boot.sh
#
# Boots Debian's own kernel as a guest, with all of its RAM private, and lets
# it check itself (vmm/guest/agent.c), while the host does what moves and drops
# pages; then a guest that shares pages and takes them back (convert.S), and one
# that dies without a word (silent.S). Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

kernel=$(KVER='' tests/vm/vmlinux)
initrd=$(scripts/guest-initrd)
log=$(mktemp -d)
trap 'rm -rf "$log"; kill %% 2>/dev/null || :' EXIT
tracing=/sys/kernel/tracing
limit=${RM_GUEST_LIMIT:-600} # seconds for a guest

stat_of() { sed -n "s/^$1: //p" "$log/stats"; }
no_stat() { [[ $(stat_of "$1") == 0 ]]; }
some_stat() { (($(stat_of "$1") > 0)); }

# What the guest says of itself; a name for each line, so that none is missed.
checks='cpus clocksource time memory fork tlb discard discard-neighbour discard-reuse steal'

# What rmvm says of a guest that dies before its console
silent='triple fault before any output'

run() { # run rmvm-options...: sets rc
	rc=0
	: >"$tracing/trace"
	timeout $((limit + 20)) build/vmm/rmvm -k "$kernel" -i "$initrd" -m 384M \
		-a 'quiet rm.do=check' --stats="$log/stats" --timeout "$limit" "$@" \
		</dev/null >"$log/out" 2>"$log/err" || rc=$?
	tr -d '\r' <"$log/out" | sed 's/^/# /'
	sed 's/^/# /' "$log/err" "$log/stats"
	((!rc)) || last_exits 40
}

boot() { # boot NAME rmvm-options...
	local name=$1 check rc
	run "${@:2}"
	is "$name: guest ends by itself" test "$rc" = 0
	for check in $checks; do
		is "$name: $check" grep -q "GUEST OK $check:" "$log/out"
	done
	# The kernel counts in batches; a guest that is left behind is 384 MiB.
	is "$name: memory is given back" test $(($(unevictable) - before)) -lt 4096
}

unevictable() { sed -n 's/^Unevictable: *\([0-9]*\) kB/\1/p' /proc/meminfo; }

disturb() {
	echo 1 >/proc/sys/vm/compact_unevictable_allowed
	while sleep 1; do
		echo 3 >/proc/sys/vm/drop_caches
		echo 1 >/proc/sys/vm/compact_memory
	done
}

echo "TAP version 13"
record_exits
before=$(unevictable)
disturb &
boot restricted --backing restricted --smp 2
is "restricted: huge mappings" some_stat mapped_2m
is "restricted: nothing was shared" no_stat converted_to_shared_pages
if [[ ${RM_SLOW-} ]]; then
	skip "guest_memfd" "a guest takes minutes to boot there"
else
	boot guest_memfd --backing guest_memfd --smp 1
	is "guest_memfd: huge mappings" some_stat mapped_2m
fi
boot "small pages" --backing restricted --huge no --smp 2
is "small pages: no huge mappings" no_stat mapped_2m
is "small pages: the host did try to move pages" \
	grep -q '^compact_migrate_scanned [1-9]' /proc/vmstat
is "small pages: nothing was shared" no_stat converted_to_shared_pages

# Pages of a pool stay whole: what is discarded of one is kept. The pool is the
# machine's from its boot on (linux_boot.vm).
pool=/sys/kernel/mm/hugepages/hugepages-2048kB
if [[ ${RM_SLOW-} ]]; then
	skip "pool" "a guest takes minutes to boot there"
else
	checks='cpus clocksource time memory fork tlb steal'
	boot pool --pool 2M --smp 2
	is "pool: huge mappings" some_stat mapped_2m
	is "pool: all pages are back" test "$(cat $pool/free_hugepages)" = 192
fi

# A guest that asks for conversions by hypercall, and gives pages back
for backing in restricted guest_memfd; do
	timeout "$limit" build/vmm/rmvm -k build/vmm/convert -m 64M --backing "$backing" \
		--timeout "$limit" </dev/null >"$log/out" 2>"$log/err" || :
	sed 's/^/# /' "$log/out" "$log/err"
	is "$backing: explicit conversion" grep -q 'GUEST OK convert' "$log/out"
done

# One that dies before it ever said anything has not ended by itself.
rc=0
timeout "$limit" build/vmm/rmvm -k build/vmm/silent -m 64M --timeout "$limit" \
	</dev/null >"$log/out" 2>"$log/err" || rc=$?
sed 's/^/# /' "$log/out" "$log/err"
silent_death() { [[ $rc == 1 && ! -s $log/out ]] && grep -q "$silent" "$log/err"; }
is "a silent death is an error" silent_death
done_testing
