# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced, in the test machine, by what runs guests in $RM_QEMU: starting them,
# talking to their console and to QEMU's monitor.
: "${RM_QEMU:?scripts/build-qemu prints it}" "${RM_INITRD:?qemu/guest/initrd prints it}"

tmp=$(mktemp -d)
trap 'vm_stop; rm -rf "$tmp"' EXIT
ovmf=/usr/share/OVMF
vm='' mon_pid=''
# vm_start MACHINE OBJECT options...: of -machine, and of the object ("none":
# ordinary memory). The console is $tmp/console, what QEMU says $tmp/err.
vm_start() {
	local machine=$1 object=$2
	shift 2
	ulimit -c unlimited
	vm_stop
	rm -f "$tmp"/mon.* "$tmp/in"
	mkfifo "$tmp/in" "$tmp/mon.in" "$tmp/mon.out"
	exec 7<>"$tmp/in" 6<>"$tmp/mon.in" 5<>"$tmp/mon.out"
	: >"$tmp/console"
	: >"$tmp/mon"
	# shellcheck disable=SC2054 # the commas are QEMU's
	local args=(-accel kvm -cpu host -nodefaults -no-user-config -display none -m 512M
		-serial stdio -chardev "pipe,id=mon,path=$tmp/mon" -mon chardev=mon,mode=control)
	if [[ $object == none ]]; then
		args+=(-machine "$machine")
	else
		args+=(-object "restrictedmem-guest,id=rm0${object:+,$object}"
			-machine "$machine,confidential-guest-support=rm0")
	fi
	cat <&5 >>"$tmp/mon" &
	mon_pid=$!
	"$RM_QEMU" "${args[@]}" "$@" <&7 >"$tmp/console" 2>"$tmp/err" 5<&- 6<&- 7<&- &
	vm=$!
}

vm_stop() {
	[[ -z $vm ]] || { kill "$vm" 2>/dev/null || :; wait "$vm" 2>/dev/null || :; }
	[[ -z $mon_pid ]] || { kill "$mon_pid" 2>/dev/null || :; wait "$mon_pid" 2>/dev/null || :; }
	vm='' mon_pid=''
}

# Does TEXT (a regular expression) come COUNT times within SECONDS?
see() { # see TEXT [COUNT [SECONDS]]
	local end=$((SECONDS + ${3:-120})) last=''
	while (($(grep -aoE "$1" "$tmp/console" | wc -l) < ${2:-1})); do
		[[ ! $last ]] && ((SECONDS < end)) || return 1
		kill -0 "$vm" 2>/dev/null || last=1
		sleep 0.2
	done
}

# What the monitor (for people; here through the one for programs) answers
monitor() { # monitor COMMAND
	local answer=''
	: >"$tmp/mon"
	printf '{"execute": "qmp_capabilities"}\n{"execute": "human-monitor-command", "id": "it",
		"arguments": {"command-line": "%s"}}\n' "$1" >&6
	for _ in {1..100}; do
		sleep 0.1
		answer=$(sed -n 's/^{"return": "\(.*\)", "id": "it"}.*/\1/p' "$tmp/mon")
		if grep -q '"id": "it"' "$tmp/mon" || ! kill -0 "$vm" 2>/dev/null; then break; fi
	done
	printf '%b' "${answer//\\r/}"
}

# For tests/tap.sh: the end of the console and of QEMU's words, as comments
why() {
	tail -c 3000 "$tmp/console" | tr -cd '[:print:]\n' | tail -n 25 | sed 's/^/# console: /'
	tail -n 10 "$tmp/err" | sed 's/^/# qemu: /'
}

# vm_firmware MACHINE OBJECT IMAGE options...: OVMF, with fresh variables
vm_firmware() {
	cp "$ovmf/OVMF_VARS_4M.fd" "$tmp/vars"
	vm_start "$1" "$2" -drive "if=pflash,format=raw,readonly=on,file=$ovmf/$3" \
		-drive "if=pflash,format=raw,file=$tmp/vars" "${@:4}"
}

# Does it end by itself within SECONDS?
ends() {
	local end=$((SECONDS + $1))
	while kill -0 "$vm" 2>/dev/null; do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
}

resident() { sed -n 's/^pc.ram: .*resident \([0-9]*\) KiB.*/\1/p' <<<"$1"; }

# Kills QEMU, and sets core: how often what the guest keeps (rm.do=secret) is in
# its core; "none" if there is no core
count_in_core() {
	local text
	text=$(tr a-y b-z <<<"the secret of the guest")
	echo "$tmp/core" >/proc/sys/kernel/core_pattern
	echo 0 >/proc/sys/kernel/core_uses_pid
	kill -ABRT "$vm"
	{ wait "$vm" || :; } 2>/dev/null
	vm='' core=none
	# shellcheck disable=SC2034 # for who sources this
	[[ ! -s $tmp/core ]] || core=$(grep -aoF "$text" "$tmp/core" | wc -l) || :
	rm -f "$tmp/core"
}
