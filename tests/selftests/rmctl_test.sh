#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/rmctl_test.sh
#
# What rmctl says against what the kernel says, and what it does for scripts.
# Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
export PATH=$PWD/build/tools:$PWD/build/vmm:$PATH
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"; kill $(jobs -p) 2>/dev/null || :' EXIT

# A key of the fdinfo of a process's descriptor; ours come last.
kernel_says() { sed -n "s/^$3:\t//p" "/proc/$1/fdinfo/$2" | tail -n 1; }

# Of the memory that a process holds, by jq's expression.
list_says() { rmctl list --json | jq -r --argjson pid "$1" \
	".memories[] | select(.held_by[].pid == \$pid) | $2"; }

nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }

# A process that holds memory until its standard input ends.
hold() { # hold rmctl-create-options... ; sets pid, fd
	mkfifo "$work/hold"
	rmctl create "$@" --fd 7 -- sh -c 'exec cat' <"$work/hold" &
	pid=$! fd=7
	exec 6>"$work/hold"
	rm "$work/hold"
	until [[ $(<"/proc/$pid/comm") == cat ]]; do sleep 0.05; done
}
release() { exec 6>&-; wait "$pid"; }

echo "TAP version 13"

info=$(rmctl info --json)
is "info: ABI version" same "$(jq .abi_version <<<"$info")" 1
is "info: the patched KVM is seen" same "$(jq .features.kvm <<<"$info")" true
is "info: small pages" same "$(jq '.page_sizes.shmem | contains([4096])' <<<"$info")" true
is "info: as text" has "$(rmctl info)" "ABI version  1"
echo $((3 << 30)) >/sys/module/restrictedmem/parameters/limit
is "info: the limit" same "$(rmctl info --json | jq .limit)" $((3 << 30))
is "info: the limit as text" has "$(rmctl info)" "Limit        3G"
echo 0 >/sys/module/restrictedmem/parameters/limit

is "list: nothing" has "$(rmctl list)" "No restricted memory."
hold --size 8M --thp never --numa bind:0
is "list: size" same "$(list_says $pid .size)" "$(kernel_says $pid $fd size)"
is "list: nothing is resident" same "$(list_says $pid .resident)" 0
rmctl populate --fd 5 --length 3M 5<>/dev/null 2>"$work/err" || :
is "populate: not on another descriptor" has "$(<"$work/err")" "Inappropriate ioctl"
release

# The shell is given the memory, and gives it to each rmctl that it calls.
# shellcheck disable=SC2016 # the inner shell's
script='rmctl populate --length 3M && rmctl punch --offset 1M --length 1M &&
	sed -n "s/^resident:\t//p" /proc/self/fdinfo/$RESTRICTEDMEM_FD &&
	rmctl list --json >'$work/list' && echo $$ $RESTRICTEDMEM_FD'
mapfile -t said < <(rmctl create --size 8M --thp never -- bash -c "$script")
is "populate and punch do so" same "${said[0]}" $((2 << 20))
read -r shell number_there <<<"${said[1]}"
is "list: resident" same "$(jq '.memories[0].resident' "$work/list")" "${said[0]}"
is "list: who holds it" same "$(jq -c '[.memories[0].held_by[] | [.pid, .fd]] | index([['"$shell,$number_there"']])' \
	"$work/list")" 0
is "memory goes with its last descriptor" has "$(rmctl list)" "No restricted memory."

hold --size 4M --populate --thp never --views --aliases
is "list: everything that fdinfo has" same \
	"$(list_says $pid '"\(.store) \(.thp) \(.numa) \(.page_size) \(.size) \(.resident) \(.flags)"')" \
	"$(for key in store thp numa page_size size resident; do kernel_says $pid $fd $key; done |
		tr '\n' ' ')$(($(kernel_says $pid $fd flags)))"
is "list: as text" has "$(rmctl list)" "held by cat ($pid) as descriptor 7"
is "list: others see nothing of it" has "$(nobody rmctl list)" "No restricted memory."
is "list: others are told that there is more" has "$(nobody rmctl list)" "root sees them all"
is "create: a number that is taken" status_is 1 rmctl create --size 1M --fd 6 -- true
release

cp "$(type -P sleep)" "$work/"$'"\e[31m\n'
rmctl create --size 1M -- "$work/"$'"\e[31m\n' 100 &
pid=$!
until [[ $(<"/proc/$pid/comm") != rmctl ]]; do sleep 0.05; done
is "list: hostile names reach no terminal" same "$(rmctl list | tr -cd '\033')" ""
is "list: hostile names are still JSON" same "$(list_says $pid '.held_by[0].command')" '"?[31m'
kill $pid
wait $pid || :

is "exit status of the command" status_is 7 rmctl create --size 1M -- sh -c 'exit 7'
is "exit status: no such command" status_is 127 rmctl create --size 1M -- "$work/none"
is "exit status: no command at all" status_is 126 rmctl create --size 1M -- "$work"
is "exit status: usage" status_is 2 rmctl create --size 1X -- true
is "exit status: no command of rmctl" status_is 2 rmctl make
is "exit status: an option too many" status_is 2 rmctl list --wide
is "exit status: an argument too many" status_is 2 rmctl list all
is "exit status: refused by the kernel" status_is 1 rmctl create --size 1 -- true
is "exit status: not allowed" status_is 1 nobody rmctl info
for command in doctor info list watch create populate punch convert window revoke run; do
	is "$command: --help" has "$(rmctl $command --help)" "Usage: rmctl $command"
	is "$command: the manual has it" grep -q "^\.It Cm $command" docs/man/rmctl.1
done

# A guest that waits for a line of input
kernel=$(KVER='' tests/vm/vmlinux) initrd=$(scripts/guest-initrd)
mkfifo "$work/console"
rmctl watch -i 0.1 >"$work/watch" 2>"$work/watch.err" &
watch=$!
rmctl run -k "$kernel" -i "$initrd" -m 128M -a 'quiet rm.do=demo' --timeout "${RM_GUEST_LIMIT:-600}" \
	<"$work/console" >"$work/guest" 2>&1 &
guest=$!
exec 5>"$work/console"
until grep -q 'GUEST' "$work/guest" || ! kill -0 $guest; do sleep 0.1; done 2>/dev/null
is "run: became rmvm" same "$(<"/proc/$guest/comm")" rmvm
is "list: a guest's bindings" same "$(list_says $guest '.bindings > 0 and .held_by[0].owner > 0')" true
is "doctor: all is well" status_is 0 rmctl doctor
is "doctor: says so" has "$(rmctl doctor)" "Guests on restricted memory work here."
is "doctor: others are not allowed" status_is 1 nobody rmctl doctor
is "doctor: and are told why" has "$(nobody rmctl doctor || :)" "/dev/restrictedmem is for root alone"
echo 4096 >/sys/module/restrictedmem/parameters/limit
is "doctor: the limit is reached" status_is 1 rmctl doctor
echo 0 >/sys/module/restrictedmem/parameters/limit
kill $guest
wait $guest || :
exec 5>&-
kill $watch
wait $watch || :
is "watch: no complaint" same "$(<"$work/watch.err")" ""
# shellcheck disable=SC2016 # awk's
is "watch: the guest's faults" awk -F '\t' '/^[0-9]/ && $8 > 0 && $3 ~ /^rmvm/ { found = 1 } END { exit !found }' \
	"$work/watch"
is "watch: leaves no instance" same "$(ls /sys/kernel/tracing/instances)" ""

hold --size 4M --populate
watch=$(rmctl watch -n 3 -i 0.05)
is "watch: a line for each interval" same "$(grep -c $'^[123]\t' <<<"$watch")" 3
is "watch: what is resident" same "$(awk -F '\t' '$1 == 3 { print $5 }' <<<"$watch")" $((4 << 20))
is "watch: without tracefs says so" has "$(nobody rmctl watch -n 1 -i 0.01 2>&1)" "only root may use"
is "watch: a bar on a terminal" has "$(TERM=xterm script -qec "rmctl watch -n 1 -i 0.01" /dev/null)" "█"
release

# shellcheck source=tools/rmctl.bash-completion
. tools/rmctl.bash-completion
COMP_WORDS=(rmctl create --st) COMP_CWORD=2 COMPREPLY=()
_rmctl
is "completion: an option" same "${COMPREPLY[*]}" --store
COMP_WORDS=(rmctl "do") COMP_CWORD=1
_rmctl
is "completion: a command" same "${COMPREPLY[*]}" doctor
done_testing
