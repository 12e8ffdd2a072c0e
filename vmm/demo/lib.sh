# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced by the two halves of the demonstration that run in the test machine:
# steps and their verdicts. failed is the exit status to end with.
# shellcheck disable=SC2034 # used by those who source this

bin=$(cd "$(dirname "$0")/../../build/vmm" && pwd -P)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
green='' red='' bold='' plain=''
if [[ ${RM_COLOUR-} ]]; then green=$'\e[32m' red=$'\e[31m' bold=$'\e[1m' plain=$'\e[0m'; fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
pass() { printf '  %sPASS%s %s\n' "$green" "$plain" "$*"; }
fail() { printf '  %sFAIL%s %s\n' "$red" "$plain" "$*"; failed=1; }
note() { sed 's/^/       /'; }

# pass if the arithmetic expression is true, fail if not
judge() {
	if (($1)); then pass "$2"; else fail "$2"; fi
}

# Takes "PASS text" and "FAIL text" from another program; there must be some.
verdicts() {
	local word text n=0
	while read -r word text; do
		case $word in
		PASS | OK) pass "$text" ;;
		*) fail "$text" ;;
		esac
		n=$((n + 1))
	done
	((n)) || fail "nothing was tried"
}
