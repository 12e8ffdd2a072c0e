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

nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }

# Who maps windows, as rmctl says while a nobody maps a file
with_mapped() { # with_mapped FILE
	mkfifo "$work/nobody.ask" "$work/nobody.said"
	RESTRICTEDMEM_WINDOW_FD=8 nobody hold_window 8<"$1" <"$work/nobody.ask" >"$work/nobody.said" &
	exec 4>"$work/nobody.ask" 3<"$work/nobody.said"
	read -r _ <&3
	rmctl list --json | jq -c '[(.memories[].mappings[], .mappings[]).pid]'
	exec 4>&- 3<&-
	wait $!
	rm "$work"/nobody.*
}

if [[ ${1-} != inside ]]; then
	echo "TAP version 13"
	work=$(mktemp -d)
	trap 'umount "$work/files" 2>/dev/null || :; rm -rf "$work"' EXIT
	mkdir "$work/files"
	chmod 755 "$work" "$work/files"
	echo text >"$work/restrictedmem-window"
	is "list: a user's file with a window's name is none" same \
		"$(with_mapped "$work/restrictedmem-window")" "[]"

	# The memory's only descriptor goes with the shell.
	mkfifo "$work/ask" "$work/said"
	rmctl create --size 1M --in-place -- \
		bash -c 'rmctl convert --shared; rmctl window -- hold_window close <&0 & wait' \
		<"$work/ask" >"$work/said" &
	pid=$!
	exec 6>"$work/ask" 5<"$work/said"
	read -r said <&5
	kill $pid
	wait $pid || :
	is "list: a mapping of which there is no descriptor" same \
		"$(rmctl list --json | jq -c '[.mappings[].command]')" '["hold_window"]'
	exec 6>&-
	read -r said <&5 || : # it has ended
	exec 5<&-
	rm "$work"/{ask,said}

	# The memory is descriptor 7 of this script, run once more.
	rmctl create --size 4M --in-place --populate --fd 7 -- "$0" inside "$work" $number
	exit
fi

number=$3
trap 'kill $(jobs -p) 2>/dev/null || :' EXIT
is "convert: neither shared nor private" status_is 2 rmctl convert
is "convert: both" status_is 2 rmctl convert --shared --private
is "convert: of what is no memory" status_is 1 rmctl convert --shared --fd 0
is "convert: beyond the end" status_is 1 rmctl convert --shared --length 8M
is "convert: works" rmctl convert --shared --offset 1M --length 2M
is "list: shared" same "$(list_says .shared)" $((2 << 20))
is "list: no windows yet" same "$(list_says '.windows')" 0
is "window: no command" status_is 2 rmctl window --offset 1M

# The numbers of a new filesystem's inodes are in order.
mount -t tmpfs -o nr_inodes=0 tmpfs "$work/files"
inode=$(list_says .inode)
(cd "$work/files" && seq "$inode" | xargs touch)
mkdir "$work/files/it"
find "$work/files" -inum "$inode" -exec mv {} "$work/files/it/restrictedmem-window" \;
echo text >"$work/files/it/restrictedmem-window"
is "list: nor is one that has the memory's inode number, too" same \
	"$(with_mapped "$work/files/it/restrictedmem-window")" "[]"
umount "$work/files"

# shellcheck disable=SC2016 # the inner shell's
script='for fd in /proc/self/fd/*; do readlink "$fd"; done | grep -c "^/restrictedmem "
	ls -l /proc/self/fd | grep -c restrictedmem-window; echo "${RESTRICTEDMEM_FD-none}"'
mapfile -t said < <(exec 6<&7; rmctl window --offset 1M --length 2M -- sh -c "$script")
is "window: the command has no descriptor of the memory" same "${said[0]}" 0
is "window: it has the window's" same "${said[1]}" 1
is "window: it is told of no other" same "${said[2]}" none

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
