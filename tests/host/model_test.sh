#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/model_test.sh
#
# Has spin look at all interleavings of the protocol in tests/model/memory.pml: the
# model holds as it is, and each mutant of it, a fault that the code once had or might
# have, is found. Searches that must find nothing are complete, or they fail.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
# shellcheck source=tests/tap.sh
. tests/tap.sh
[[ ${1-} != -h ]] || { usage; exit; }

model=$PWD/tests/model/memory.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Prints what spin found in the model with those options: nothing, the assertion that
# does not hold, or "non-progress cycle". A search that is cut short says so.
search() { # search safety|progress OPTION...
	local kind=$1 build run
	shift
	case $kind in
	safety) build=(-DSAFETY) run=() ;;
	progress) build=(-DNP -DNFAIR=3) run=(-l -f) ;;
	esac
	(cd "$work" && spin -a "${@/#/-D}" "$model" && gcc -O2 -w -DCOLLAPSE -DMEMLIM=4096 \
		"${build[@]}" -o pan pan.c && ./pan -m1000000 "${run[@]}") >"$work/log" 2>&1 || :
	# A trail means that something was found; so does each of these lines.
	sed -n 's/^pan:[0-9]*: //p; /^error:/p; /[Ee]rror: max search depth/p; /Search not completed/p' \
		"$work/log"
	grep -q 'errors: ' "$work/log" || tail -n 5 "$work/log"
}

holds() { # holds KIND OPTION...
	same "$(search "$@")" ""
}
is_found() { # is_found PATTERN KIND OPTION...: a finding, of that kind
	has "$(search "${@:2}")" "$1"
}

cpu=(VCPU=1 ACCESSES=1)
long=(VCPU=1 ACCESSES=2)
two=(VCPU=2 ACCESSES=2)

echo "TAP version 13"
for half in "" HUGE_PRIVATE; do
	is "model${half:+.$half}: conversion, discard and munmap under a guest" \
		holds safety ${half:+"$half"} "${cpu[@]}" CONVERTER=1 UNMAPPER=1 DISCARDER=1
	is "model${half:+.$half}: two conversions and a munmap" \
		holds safety ${half:+"$half"} "${cpu[@]}" CONVERTER=2 UNMAPPER=1
	is "model${half:+.$half}: deletion of the slot" \
		holds safety ${half:+"$half"} "${cpu[@]}" CONVERTER=1 DELETER PREFAULTER START_PRIVATE=true
done
is "model: everybody comes to an end" holds progress "${cpu[@]}" DELETER PREFAULTER

for half in "" "HUGE_PRIVATE START_PRIVATE=true"; do
	read -ra options <<<"$half"
	is "mutant DECIDE_TWICE${options[0]:+.${options[0]}}: a stranger's frame is mapped" \
		is_found "assertion violated" safety DECIDE_TWICE "${options[@]}" "${two[@]}" CONVERTER=2
done
is "mutant RETRY_IN_SRCU: deletion and prefault wait for each other" \
	is_found "non-progress cycle" progress RETRY_IN_SRCU DELETER PREFAULTER
is "mutant STALE_FLAG: a page is freed that is mapped" \
	is_found "used[spte" safety STALE_FLAG "${cpu[@]}" CONVERTER=1 UNMAPPER=1
is "mutant OWED_FLUSH: a stale translation survives" \
	is_found "tlb[" safety OWED_FLUSH "${two[@]}" CONVERTER=1 UNMAPPER=1
is "mutant WRITE_WITHOUT_ZAP: the other half stays mapped" \
	is_found "assertion violated" safety WRITE_WITHOUT_ZAP "${long[@]}" CONVERTER=1
is "mutant DISCARD_WITHOUT_LOCK: a page is freed that is mapped" \
	is_found "used[spte" safety DISCARD_WITHOUT_LOCK "${cpu[@]}" CONVERTER=1 DISCARDER=1
is "mutant NO_SEQUENCE: a page is freed that is mapped" \
	is_found "used[spte" safety NO_SEQUENCE "${cpu[@]}" DISCARDER=1 START_PRIVATE=true
done_testing
