#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/balloon.sh
#
# Memory that a guest has used and freed goes back to the host, with the stock
# driver of Debian's kernel; and pages that it gives back one by one, whether
# they are private or shared. Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

kernel=$(KVER='' tests/vm/vmlinux)
initrd=$(scripts/guest-initrd --modules)
tmp=$(mktemp -d)
. vmm/demo/backend.sh
why() {
	tail -n 5 "$tmp"/{guest,guest.err} | sed 's/^/# /'
	last_exits 20
}
record_exits
trap 'pair_stop; rm -rf "$tmp"' EXIT

# KiB of the memory's file that are there
resident() {
	local fd
	fd=$(sed -n 's/^rmvm: ram gpa 0 .* fd \([0-9]*\).*/\1/p' "$tmp/guest.err")
	echo $(($(stat -Lc %b "/proc/$vm/fd/$fd") / 2))
}

falls_below() { # falls_below KIB: in the end
	local end=$((SECONDS + limit))
	until (($(resident) < $1)); do
		((SECONDS < end)) && kill -0 "$vm" || return 1
		sleep 0.5
	done
}

uses_and_frees() { # uses_and_frees COUNT: for the COUNTth time
	wait_for "$tmp/guest" "$vm" 'GUEST FREE' "$1" && (($(grep -c 'OK memory' "$tmp/guest") == $1))
}

balloon() { # balloon BACKING
	rm -f "$tmp/in"
	mkfifo "$tmp/in"
	exec 6<>"$tmp/in"
	: >"$tmp/guest"
	build/vmm/rmvm -k "$kernel" -i "$initrd" -m 384M -c 2 -b "$1" --balloon -v --timeout "$limit" \
		--stats="$tmp/stats" -a 'quiet rm.do=balloon' <&6 >"$tmp/guest" 2>"$tmp/guest.err" &
	vm=$!
	is "$1: the guest uses its memory and frees it" uses_and_frees 1
	is "$1: half of RAM and more goes back" falls_below $((192 * 1024))
	echo "# $(resident) KiB of $((384 * 1024)) are resident"
	echo again >&6
	is "$1: it uses it again" uses_and_frees 2
	is "$1: which goes back again" falls_below $((192 * 1024))
	echo end >&6
	is "$1: it ends by itself" wait "$vm"
	sed 's/^/# /' "$tmp/guest.err" "$tmp/stats"
	vm=''
}

echo "TAP version 13"
echo "1..17"
balloon in-place
is "in-place: no page was split off in the guest" test "$(sed -n 's/^mapped_4k: //p' "$tmp/stats")" = 0
balloon restricted

# One by one; the backend has a window on two of them.
is "a guest with a disk comes up" pair_start in-place 5 ""
guest "fill 0 8" >/dev/null
guest "share 0 2" >/dev/null
guest "discard 8 1" >/dev/null # so that nothing new is touched by doing it
before=$(resident)
is "it gives two shared and two private pages back" grep -q "OK discard" <<<"$(guest "discard 0 4")"
is "the host has four pages more" test "$(resident)" = $((before - 16))
is "their contents are gone" grep -q "FAIL look 0 4: 4 pages" <<<"$(guest "look 0 4")"
is "for the backend as well" grep -q "NOT SEEN in 0" <<<"$(backend "look 5")"
is "the others are as they were" grep -q "OK look 4 4" <<<"$(guest "look 4 4")"
