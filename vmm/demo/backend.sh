# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced, in the test machine: a guest whose disk's backend is vmm/backend.c,
# both of which do what they are told. $tmp is a folder for their files; $kernel
# and $initrd are the guest's.
: "${tmp:?}" "${kernel:?}" "${initrd:?}"
bin=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../build/vmm" && pwd -P)
limit=${RM_GUEST_LIMIT:-100}
vm='' backend=''

# pair_start BACKING SEED WORD rmvm-options...: WORD is the backend's, or empty
pair_start() {
	local word=$3
	pair_stop
	rm -f "$tmp"/{socket,guest.in,backend.in}
	mkfifo "$tmp/guest.in" "$tmp/backend.in"
	exec 6<>"$tmp/guest.in" 5<>"$tmp/backend.in"
	: >"$tmp/guest"
	: >"$tmp/backend"
	# shellcheck disable=SC2086 # no word or one
	"$bin/backend" "$tmp/socket" $word <&5 >"$tmp/backend" 2>"$tmp/backend.err" 6<&- &
	backend=$!
	until [[ -S $tmp/socket ]]; do sleep 0.05; done
	"$bin/rmvm" -k "$kernel" -i "$initrd" -m 256M -b "$1" --vhost-user-blk "$tmp/socket" -v \
		--timeout $((limit * 4)) --stats="$tmp/stats" \
		-a "quiet rm.do=pages rm.share=1 rm.seed=$2" "${@:4}" \
		<&6 >"$tmp/guest" 2>"$tmp/guest.err" 5<&- &
	vm=$!
	wait_for "$tmp/guest" "$vm" 'GUEST DONE' 1
}

backend_kill() {
	kill -KILL "$backend"
	{ wait "$backend" || :; } 2>/dev/null
	backend=''
}

pair_stop() {
	[[ -z $vm ]] || kill "$vm" 2>/dev/null || :
	[[ -z $backend ]] || kill "$backend" 2>/dev/null || :
	wait 2>/dev/null || :
	vm='' backend=''
}

# wait_for FILE PID TEXT COUNT: until the text is there so often
wait_for() {
	local end=$((SECONDS + limit))
	while (($(grep -c "$3" "$1" || :) < $4)); do
		kill -0 "$2" 2>/dev/null && ((SECONDS < end)) || return 1
		sleep 0.1
	done
}

# Both print what the command printed.
guest() { tell guest "$vm" 6 'GUEST DONE' "$*" | sed -n 's/^GUEST //p'; }
backend() { tell backend "$backend" 5 '^DONE' "$*"; }
tell() { # tell FILE PID FD TEXT COMMAND
	local lines count
	lines=$(wc -l <"$tmp/$1")
	count=$(grep -c "$4" "$tmp/$1") || :
	echo "$5" >&"$3"
	wait_for "$tmp/$1" "$2" "$4" $((count + 1)) || echo "no answer"
	tail -n +$((lines + 1)) "$tmp/$1" | tr -d '\r' | sed "/$4/d"
}
