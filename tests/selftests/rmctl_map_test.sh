#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/rmctl_map_test.sh
#
# rmctl convert, window and revoke, and what rmctl list says of windows and of who
# maps them. Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
export PATH=$PWD/build/tools:$PWD/build/selftests:$PATH
work=${2-}

list_says() { rmctl list --json | jq -c ".memories[0]$1"; }

# Another line to the process that maps the window; its answer is in $said.
ask() {
	echo >&6
	read -r said <&5
}

if [[ ${1-} != inside ]]; then
	echo "TAP version 13"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	# The memory is descriptor 7 of this script, run once more.
	rmctl create --size 4M --in-place --populate --fd 7 -- "$0" inside "$work"
	exit
fi

trap 'kill $(jobs -p) 2>/dev/null || :' EXIT
is "convert: neither shared nor private" status_is 2 rmctl convert
is "convert: both" status_is 2 rmctl convert --shared --private
is "convert: of what is no memory" status_is 1 rmctl convert --shared --fd 0
is "convert: beyond the end" status_is 1 rmctl convert --shared --length 8M
is "convert: works" rmctl convert --shared --offset 1M --length 2M
is "list: shared" same "$(list_says .shared)" $((2 << 20))
is "list: no windows yet" same "$(list_says '.windows')" 0
is "window: no command" status_is 2 rmctl window --offset 1M

mkfifo "$work/ask" "$work/said"
rmctl window --offset 1M --length 2M --window-fd 8 -- hold_window <"$work/ask" >"$work/said" &
pid=$!
exec 6>"$work/ask" 5<"$work/said"
read -r said <&5
is "window: can be mapped" same "$said" "mapped $((2 << 20))"
ask
is "window: shared memory can be read" same "$said" "read 0"
is "list: a window" same "$(list_says .windows)" 1
is "list: whose" same \
	"$(list_says '.windows_held_by[] | [.pid, .fd, .offset, .length, .write, .revoked]')" \
	"[$pid,8,$((1 << 20)),$((2 << 20)),false,false]"
is "list: who maps it" same "$(list_says '.mappings[] | [.pid, .command, .offset, .length, .write]')" \
	"[$pid,\"hold_window\",$((1 << 20)),$((2 << 20)),false]"
is "list: as text, the window" has "$(rmctl list)" \
	"window of hold_window ($pid) as descriptor 8: 2M at 1M, read-only"
is "list: as text, the mapping" has "$(rmctl list)" "mapped by hold_window ($pid) at 0x"

rmctl watch -i 0.05 >"$work/watch" &
watch=$!
until grep -q ^1 "$work/watch"; do sleep 0.05; done
for _ in 1 2 3; do
	rmctl convert --private --offset 1M --length 2M
	rmctl convert --shared --offset 1M --length 2M
done
n=$(tail -n 1 "$work/watch" | cut -f 1)
until grep -q "^$((n + 2))" "$work/watch"; do sleep 0.05; done
kill $watch
wait $watch
is "watch: ends well at a signal" same $? 0
# shellcheck disable=SC2016 # awk's
is "watch: conversions" awk -F '\t' '/^[0-9]/ && $9 > 0 { found = 1 } END { exit !found }' "$work/watch"
is "watch: shared" same "$(tail -n 1 "$work/watch" | cut -f 6)" $((2 << 20))
rmctl convert --private
ask
is "convert: private memory cannot be read" same "$said" SIGBUS
is "list: nothing is shared" same "$(list_says .shared)" 0
rmctl convert --shared
ask
is "convert: and again it can" same "$said" "read 0"
is "revoke: a window that is none" status_is 1 rmctl revoke --window-fd 7
is "revoke: works" rmctl revoke
ask
is "revoke: nothing can be read" same "$said" SIGBUS
is "list: the window is revoked" same "$(list_says '.windows_held_by[].revoked')" true
exec 6>&-
wait $pid || :
is "list: the window has gone with its process" same "$(list_says '.windows_held_by')" "[]"
done_testing
