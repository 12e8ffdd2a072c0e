# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced by the project's scripts: messages, and the folder for what is
# costly to make and outlives a clone.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The lines of the comment at the head of the calling script are its help.
usage() { sed -n '/^# Usage/,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

cache_dir() {
	local dir=${RM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/restrictedmem}
	mkdir -p "$dir"
	printf '%s\n' "$dir"
}
