# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced by tests in shell: lines of TAP. The plan is printed first, or at the
# end, by done_testing; without it, the run counts as failed. A test that has a
# function why() says there what may explain a failure.

number=0

is() { # is NAME COMMAND...: one line of TAP
	number=$((number + 1))
	if "${@:2}"; then
		echo "ok $number $1"
	else
		echo "not ok $number $1"
		! declare -F why >/dev/null || why || :
	fi
}

skip() { # skip NAME REASON
	number=$((number + 1))
	echo "ok $number $1 # SKIP $2"
}

same() { [[ $1 == "$2" ]] || { printf '# "%s" is not "%s"\n' "$1" "$2"; return 1; }; }

has() { [[ $1 == *"$2"* ]] || { printf '%s\n' "$1" "does not have \"$2\"" | sed 's/^/# /'; return 1; }; }

status_is() { # status_is STATUS COMMAND...
	local rc=0
	"${@:2}" >/dev/null 2>&1 || rc=$?
	same "$rc" "$1"
}

# For tests that run guests: what KVM did last, when one died.
record_exits() { echo 1 >/sys/kernel/tracing/events/kvm/kvm_exit/enable; }
last_exits() { # last_exits COUNT
	tail -n "$1" /sys/kernel/tracing/trace | sed 's/^/# /'
}

done_testing() { echo "1..$number"; }
