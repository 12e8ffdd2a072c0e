#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/qemu/convert_test.sh
#
# Conversions are whole or not at all, whatever the kernel answers (fail.c makes it
# answer), and only the guest's request is one. Runs in the test machine
# (tests/qemu/run).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tap.sh
. tests/qemu/lib.sh

gcc -D_GNU_SOURCE -O2 -shared -fPIC -Iinclude/uapi -o "$tmp/fail.so" tests/qemu/fail.c
last=$((512 * 256 - 1)) # page of RAM
shared='' first=''

start() { # a guest that converts what it is told: "OK" or "FAIL", and the line
	LD_PRELOAD=$tmp/fail.so RM_FAIL=$tmp/fail vm_start pc "" -kernel "/boot/vmlinuz-$KVER" \
		-initrd "$RM_INITRD" -append "console=ttyS0 quiet acpi=off rm.do=convert"
	see "GUEST CONVERTS" || return
	first=$(tr -d '\r' <"$tmp/console" | sed -n 's/^GUEST CONVERTS \(0x[0-9a-f]*\) .*/\1/p')
}
guest() { # guest OK|FAIL COMMAND
	echo "$2" >&7
	see "GUEST (OK|FAIL) $2" && grep -aq "GUEST $1 $2" "$tmp/console"
}
page() { printf '%#x' $((first + $1 * 4096)); } # page N: where it is
next_fails() { echo "$*" >"$tmp/fail.new" && mv "$tmp/fail.new" "$tmp/fail"; }
came() { # has it failed? A question to the processor makes it leave, and run again.
	for _ in {1..50}; do
		monitor "info registers" >/dev/null
		[[ -e $tmp/fail ]] || return 0
	done
	return 1
}
shared_is() { # shared_is KIB
	shared=$(monitor "info guest-memfd" | sed -n 's/^pc.ram: .* shared \([0-9]*\) KiB.*/\1/p')
	same "$shared" "$1"
}
stopped() { has "$(monitor "info status")" internal-error; }

echo "TAP version 13"
echo "1..28"

is "a guest comes up" start
is "it shares two pages" guest OK "share 0 2"
is "and the last one of its RAM" guest OK "share@ $last 1"
is "what reaches beyond RAM cannot become private" guest FAIL "private@ $last 2"
is "and none of it did" shared_is 12
is "it can be shared" guest OK "share@ $((last - 1)) 4"
is "what of it is RAM" shared_is 16

next_fails attributes 12 # ENOMEM
is "without memory for attributes the guest is told" guest FAIL "private 0 2"
is "and nothing has changed" shared_is 16
is "the next time it works" guest OK "private 0 1"
is "and that one is private" shared_is 12
next_fails attributes 4 # EINTR
is "a signal meanwhile is no error: attributes" guest OK "share 2 1"
next_fails punch 4
is "a signal meanwhile is no error: contents" guest OK "share 3 1"
is "and these are shared" shared_is 20

next_fails fault 14 "$(page 10)" 0 # EFAULT
is "a fault from when a page was shared" came
is "shares nothing" shared_is 20
next_fails fault 28 "$(page 1)" 8 # ENOSPC
is "a fault from when a page was private" came
is "takes nothing back" shared_is 20
is "and the guest goes on" guest OK "share 4 1"
next_fails fault 28 "$(page 10)" 8
is "a page that cannot be had" came
is "stops the machine" stopped
is "and it is said" grep -q "private memory at $(page 10) cannot be had: No space" "$tmp/err"

is "another guest comes up" start
next_fails punch 5 # EIO
echo "share 5 1" >&7
is "contents that cannot be dropped" came
is "stop the machine, which would go on half converted" stopped

is "one more" start
is "it shares two pages" guest OK "share 0 2"
next_fails attributes 12
monitor system_reset >/dev/null || :
is "a reset that cannot make all private ends the machine" ends 30
