#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/backend.sh
#
# A guest whose disk's backend (vmm/backend.c) is hostile: it keeps what it was
# given, reaches for more, writes nonsense, does not answer, dies. It gets at
# nothing that is not shared, and the guest lives on. Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

kernel=$(KVER='' tests/vm/vmlinux)
initrd=$(scripts/guest-initrd --modules)
tmp=$(mktemp -d)
. vmm/demo/backend.sh
why() {
	tail -n 5 "$tmp"/{guest,guest.err,backend,backend.err} | sed 's/^/# /'
	last_exits 20
}
record_exits
trap 'pair_stop; rm -rf "$tmp"' EXIT

# guest_says, backend_says TEXT COMMAND: is that its answer, in part?
guest_says() { grep -q "$1" <<<"$(guest "$2")"; }
backend_says() { grep -q "$1" <<<"$(backend "$2")"; }
said() { grep -q "$1" "$tmp/guest.err"; }
regions() { [[ $(backend regions | grep -c REGION) == "$1" ]]; }
lives() { guest_says "OK fork" check; }
gpa() { # gpa PAGE: where the page of /dev/rmpage is
	local first
	first=$(tr -d '\r' <"$tmp/guest" | sed -n 's/^GUEST PAGES \(0x[0-9a-f]*\) .*/\1/p')
	printf '%#x' $((first + $1 * 4096))
}

echo "TAP version 13"
echo "1..66"

is "a guest with a disk comes up" pair_start in-place 5 ""
is "its disk works" guest_says "OK disk" disk
is "the backend has one region, the pool" regions 1
is "a private page is in no region" backend_says "NO MAPPING" "peek $(gpa 3)"
is "the guest fills pages with a secret" guest_says "OK fill" "fill 0 64"
is "the backend does not see it" backend_says "NOT SEEN in 0" "look 5"
is "the guest shares two of them" guest_says "OK share" "share 3 2"
is "the backend sees those" backend_says "SEEN in 2 of" "look 5"
is "what it writes there" backend_says WROTE "poke $(gpa 4) written by the backend"
is "the guest reads: it is the same page" guest_says "TEXT written by the backend" "show 4"
is "another page is out of reach" backend_says "NO MAPPING" "peek $(gpa 5)"
backend beyond >"$tmp/beyond"
sed 's/^/# /' "$tmp/beyond"
for what in 'mmap of more' 'mmap behind the end' mremap ftruncate fallocate read write open; do
	is "the window gives no more by $what" grep -q "^REFUSED $what:" "$tmp/beyond"
done
is "the guest takes one back" guest_says "OK private" "private 3 1"
is "the backend, which kept its mapping, gets SIGBUS" backend_says "^SIGBUS" "peek $(gpa 3)"
is "also for writing" backend_says SIGBUS "poke $(gpa 3) text"
is "and has the other one" backend_says "READ written by" "peek $(gpa 4)"
is "the contents stayed" guest_says "OK look" "look 3 1"
is "the guest shares it again" guest_says "OK share" "share 3 1"
is "the old mapping does not come back" backend_says "SIGBUS in [1-9]" "look 5"
guest "private 3 1" >/dev/null

# Of pages 2 to 5 only number 4 is shared, and held.
is "the backend has the kernel hold a page" backend_says HELD "hold $(gpa 4)"
is "so it cannot be taken back" guest_says "FAIL private 2 4: Resource temporarily" "private 2 4"
is "and is shared still" backend_says "READ" "peek $(gpa 4)"
is "but not what was private beside it" backend_says "NOT SEEN in 0" "look 5"
is "the page is let go" backend_says RELEASED release
is "and can be taken back" guest_says "OK private" "private 2 4"
guest "fill 0 64" >/dev/null

# The backend takes four regions, one of which is the pool.
for page in 10 20 11 30 21; do guest "share $page 1" >/dev/null; done
is "regions that touch are joined when there are too many" regions 4
is "and show everything that is shared" backend_says "SEEN in [1-9]" "look 5"
guest "share 40 1" >/dev/null
is "what is too much for the backend is said" said 'takes no more than 4 regions'
is "the disk works" guest_says "OK disk" disk
for page in 10 20 11 30 21 40; do guest "private $page 1" >/dev/null; done
is "all taken back, there is the pool alone" regions 1
is "and no secret anywhere" backend_says "NOT SEEN in 0" "look 5"
pool=$(sed -n 's/^rmvm: window gpa \(0x[0-9a-f]*\) size 0x400000 .*/\1/p' "$tmp/guest.err")
is "a part of the pool is taken back" guest_says "OK private" "private@ $((pool / 4096 + 900)) 8"
is "the region with the queue stays" regions 1
is "with SIGBUS in it" backend_says "^SIGBUS" "peek $((pool + 900 * 4096))"
is "the disk works still" guest_says "OK disk" disk
is "nonsense in the queue" backend_says GARBLED garble
is "costs the guest its disk" guest_says "FAIL disk" disk
is "and no more" lives
backend nonsense >/dev/null
guest "share 50 1" >/dev/null
is "a backend that answers nonsense is given up" said 'answers nonsense to ADD_MEM_REG'
is "and the guest goes on" lives
is "the backend has lost all its windows" backend_says 'of \([0-9]*\) pages, SIGBUS in \1$' "look 5"
pair_stop

is "with a backend that takes all regions at once" pair_start in-place 5 table --backend-timeout 3
guest "fill 0 64" >/dev/null
guest "share 3 2" >/dev/null
is "the table is sent again" backend_says "SEEN in 2" "look 5"
is "the disk works" guest_says "OK disk" disk
guest "private 3 2" >/dev/null
is "and again" regions 1
is "the guest writes the secret to the disk" guest_says "OK write" write
is "the backend does not see it in the pool later" backend_says "NOT SEEN in 0" "look 5"
is "the guest reads the secret from the disk" guest_says "OK disk" disk
is "the backend does not see that later, either" backend_says "NOT SEEN in 0" "look 5"
backend stall >/dev/null
is "a backend that stalls: I/O waits" guest_says "WAITS disk" disk
is "it does not see what the buffer held" backend_says "NOT SEEN in 0" "look 5"
is "the guest sends the secret, and waits" guest_says "WAITS write" write
is "it sees what it was sent" backend_says "^SEEN in 16 of" "look 5"
is "conversion does not" guest_says "OK share" "share 3 1"
is "it is given up" said 'does not answer SET_MEM_TABLE'
is "and the guest goes on" lives
pair_stop

pair_start in-place 5 "" || :
backend_kill
is "a backend dies: conversion goes on" guest_says "OK share" "share 3 1"
is "it is said" said 'the backend is gone'
is "and the guest goes on" lives
