#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/sample_test.sh
#
# samples/consumer, as docs/consumers.rst uses it. Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
export PATH=$PWD/build/tools:$PATH
control=/sys/kernel/debug/restrictedmem_consumer

say_to_it() { echo "$*" 2>/dev/null >"$control"; }
# In this process the memory is descriptor 9.
if [[ ${1-} == inside ]]; then
	say_to_it bind 9
	is "bind: the file has a binding" has "$(rmctl list --json | jq -c '.memories[].bindings')" 1
	is "bind: once" status_is 1 say_to_it bind 9
	is "unload: not while it is bound" status_is 1 rmmod consumer
	say_to_it touch 3
	say_to_it touch 700
	is "touch: the pages are mapped" same "$(tr '\n' ' ' <"$control")" "3 700 "
	is "touch: not beyond the end" status_is 1 say_to_it touch 1024
	rmctl punch --fd 9 --offset 2M
	is "punch: the page is not mapped any more" same "$(<"$control")" 3
	say_to_it touch 700
	is "punch: it can be touched again" same "$(tr '\n' ' ' <"$control")" "3 700 "
	say_to_it unbind
	is "unbind: nothing is mapped" same "$(<"$control")" ""
	is "unbind: the file has no binding" has "$(rmctl list --json | jq -c '.memories[].bindings')" 0
	rmmod consumer
	is "unload: works" test ! -e "$control"
	done_testing
	exit
fi

echo "TAP version 13"
insmod samples/consumer/consumer.ko
exec rmctl create --size 4M --fd 9 -- "$0" inside
