#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/cache_test.sh
#
# The scripts run what they find in their cache: it is nowhere where somebody
# else could have put it.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What cache_dir says, and its status
cache() { # cache [NAME=VALUE...]
	# shellcheck disable=SC2016 # the inner shell's
	env -u HOME -u XDG_CACHE_HOME -u RM_CACHE "$@" \
		bash -euo pipefail -c '. scripts/lib.sh; dir=$(cache_dir); echo "$dir"' 2>"$work/said"
}
refused() { # refused TEXT FOLDER
	! cache RM_CACHE="$2" >/dev/null && has "$(<"$work/said")" "$1"
}

echo "TAP version 13"
is "HOME says where" same "$(cache HOME="$work")" "$work/.cache/restrictedmem"
is "a new one is for its owner alone" same "$(stat -c %a "$work/.cache/restrictedmem")" 700
is "XDG_CACHE_HOME says where" same "$(cache XDG_CACHE_HOME="$work/xdg")" "$work/xdg/restrictedmem"
is "RM_CACHE says where" same "$(cache RM_CACHE="$work/own")" "$work/own"
is "without HOME it is at home" same "$(cache)" "$(realpath ~/.cache/restrictedmem)"
is "a folder that cannot be made is an error" status_is 1 cache RM_CACHE=/dev/null/cache

mkdir -m 1777 "$work/sticky"
is "below what all may write to, like /tmp, if nobody can replace it" \
	same "$(cache RM_CACHE="$work/sticky/own")" "$work/sticky/own"
is "not there itself" refused "anybody may write to $work/sticky:" "$work/sticky"
mkdir -p "$work/open/own"
chmod 777 "$work/open"
is "not below what anybody can replace" refused "anybody may write to $work/open:" "$work/open/own"
ln -s ../own "$work/sticky/link"
is "a link is followed first" same "$(cache RM_CACHE="$work/sticky/link")" "$work/own"

# Whose the caller's own group is: NAME MEMBERS, and the PRIMARY group of another user
mkdir -p "$work/bin" "$work/group/own"
cat >"$work/bin/getent" <<-'END'
	#!/bin/sh
	case $1 in
	group) echo "${NAME-me}:x:$2:${MEMBERS-}" ;;
	passwd) echo "me:x:$(id -u):$(id -g)::/:"
		[ "$2" ] || echo "other:x:4242:${PRIMARY-4242}::/:" ;;
	esac
END
chmod +x "$work/bin/getent"
chmod 775 "$work/group"
with_group() { # with_group [NAME=VALUE...]
	cache PATH="$work/bin:$PATH" RM_CACHE="$work/group/own" "$@"
}
group_refused() {
	! with_group "$@" >/dev/null && has "$(<"$work/said")" "its group may write to $work/group:"
}
is "below what a group of the owner alone may write to" same "$(with_group)" "$work/group/own"
is "not of one that has a member" group_refused MEMBERS=other
is "nor that another user begins in" group_refused PRIMARY="$(id -g)"
is "nor of one that has another name" group_refused NAME=users
if command -v setfacl >/dev/null && setfacl -m u:4242:rwx "$work/group"; then
	is "nor where there is an ACL" group_refused
else
	skip "nor where there is an ACL" "no setfacl"
fi
if ((!EUID)); then
	mkdir "$work/staff"
	chown :4242 "$work/staff"
	chmod 2775 "$work/staff"
	is "not below what another group may write to" \
		refused "its group may write to $work/staff:" "$work/staff/own"
	mkdir -p "$work/sticky"/{planted,theirs/own}
	chown 65534 "$work/sticky"/{planted,theirs}
	ln -s planted "$work/sticky/planted-link"
	is "not what somebody else has put there" \
		refused "$work/sticky/planted is not yours" "$work/sticky/planted"
	is "nor through a link" refused "$work/sticky/planted is not yours" "$work/sticky/planted-link"
	is "nor below it" refused "$work/sticky/theirs is not yours" "$work/sticky/theirs/own"
else
	skip "not what somebody else has put there" "only root gives folders away"
fi
done_testing
