#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/rmvm_test.sh [VMM]
#
# rmvm against hostile guests, backends and consoles (tests/host/rmvm), with the
# sanitizers' eyes on it. VMM is the folder of its source, if not this tree's.
set -euo pipefail
cd "$(dirname "$0")/../.."
vmm=${1:-vmm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=(-std=gnu11 -O1 -g -Wall -pthread -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude/uapi
	-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined)
wrap=(open64 ioctl fallocate64 mmap64 clock_gettime alarm
	pthread_mutex_lock pthread_mutex_unlock)
sources=()
for source in "$vmm"/*.[cS]; do
	case ${source##*/} in
	rmvm.c | backend.c | probe.c) ;; # they have a main()
	*) sources+=("$source") ;;
	esac
done
gcc "${flags[@]}" -Dmain=rmvm_main -c -o "$work/main.o" "$vmm/rmvm.c"
gcc "${flags[@]}" "${wrap[@]/#/-Wl,--wrap=}" \
	-isystem "$(scripts/linux-source)/tools/testing/selftests" -o "$work/rmvm_test" "$work/main.o" "${sources[@]}" tests/host/rmvm/*.c
# What is mapped at the end is the process's, as with any VMM.
ASAN_OPTIONS=detect_leaks=0 "$work/rmvm_test"
