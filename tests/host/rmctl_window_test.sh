#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/rmctl_window_test.sh
#
# What "rmctl window" hands to its command, with a module that is not there
# (tests/host/rmctl) and few descriptors.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make -s -C lib OUT="$work/lib" "$work/lib/librestrictedmem.a"
make -s -C tools OUT="$work/tools" LIB="$work/lib"
gcc -std=gnu11 -O2 -Wall -D_GNU_SOURCE -Iinclude/uapi -shared -fPIC -o "$work/module.so" \
	tests/host/rmctl/module.c
touch "$work/memory" "$work/file"

# Which of the descriptors 7 (memory), 8 (another's) and 9 (a file) the command has,
# and whether it has a window
window() { # window LIMIT: of descriptors
	# shellcheck disable=SC2016 # the inner shells'
	env RESTRICTEDMEM_FD=7 work="$work" limit="$1" bash -c 'ulimit -n "$limit"
		LD_PRELOAD=$work/module.so exec "$work/tools/rmctl" window -- sh -c "
			for fd in 7 8 9 \$RESTRICTEDMEM_WINDOW_FD; do
				[ -e /proc/self/fd/\$fd ] && echo \$fd
			done"' 7<"$work/memory" 8<"$work/memory" 9<"$work/file" 2>"$work/said"
}

echo "TAP version 13"
mapfile -t has < <(window 64)
is "the command has the window and no memory" same "${has[*]}" "9 4"
# 0 to 2, the window, and the folder of all descriptors: none is left to look at one.
is "memory that cannot be told from a file is not passed on" same "$(window 5 || echo $?)" 1
is "it says why" has "$(<"$work/said")" "Too many open files"
done_testing
