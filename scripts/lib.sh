# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced by the project's scripts: messages, the folder for what is costly to
# make and outlives a clone, and packages of other suites of Debian.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# The lines of the comment at the head of the calling script are its help.
usage() { sed -n '/^# Usage/,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# Is the group's bit for that folder its owner's alone? With umask 002 all have it,
# and each user a group of that name with nobody else in it. Where there is an ACL,
# the bit says what others may have at most.
private_group() { # private_group UID GID FOLDER
	local user group members
	IFS=: read -r user _ < <(getent passwd "$1")
	IFS=: read -r group _ _ members < <(getent group "$2")
	[[ $user && $group == "$user" && ! $members ]] &&
		[[ $( (getent passwd "$1"; getent passwd) |
			awk -F : -v gid="$2" '$4 == gid { print $3 }' | sort -u) == "$1" ]] &&
		[[ $(ls -ld -- "$3") != ??????????+* ]]
}

# What is in there is run, and not only by its owner. So it and all folders above
# are root's, the caller's, or of whom these scripts are, who could as well change
# them; and who else may write above it can take away only what is theirs (sticky).
cache_dir() {
	local dir=${HOME:-$(getent passwd "$EUID" | cut -d : -f 6)} folders=(/)
	local owner group mode path who
	dir=${RM_CACHE:-${XDG_CACHE_HOME:-${dir:?no home, and no \$RM_CACHE}/.cache}/restrictedmem}
	(umask 077 && mkdir -p "$dir") && dir=$(CDPATH='' cd -- "$dir" && pwd -P) || return
	for ((path = 0; path < ${#dir}; path++)); do
		[[ $path == 0 || ${dir:path:1} != / ]] || folders+=("${dir:0:path}")
	done
	while read -r owner group mode path; do
		case $owner in
		0 | "$EUID" | "$(stat -c %u "${BASH_SOURCE[0]}")") ;;
		*) die "$path is not yours: no cache in $dir; \$RM_CACHE may name another folder" ;;
		esac
		who=
		((!(8#$mode & 8#20))) || private_group "$owner" "$group" "$path" || who="its group"
		((!(8#$mode & 2))) || who=anybody
		[[ ! $who ]] || ((8#$mode & 8#1000 && ${#path} < ${#dir})) ||
			die "$who may write to $path: no cache in $dir; \$RM_CACHE may name another folder"
	done < <(stat -c '%u %g %a %n' "${folders[@]}" "$dir")
	printf '%s\n' "$dir"
}

# An apt for one suite, by the mirror of Debian that this machine's apt has, which
# checks signatures and sums as always. apt's own configuration stays as it is.
other_suite() { # other_suite FOLDER SUITE [deb-src]: then apt-get -c=FOLDER/conf
	local mirror codename type keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	# shellcheck disable=SC2016 # apt's variables
	mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' \
		'Created-By: Packages' 'Component: main' |
		awk -v r="$codename" '$2 == r { print $1; exit }')
	[[ $mirror ]] || { say "found no mirror with $codename among apt's sources"; return 1; }
	mkdir -p "$1"/{lists,cache/archives}/partial
	: >"$1/status"
	for type in deb ${3-}; do
		printf '%s [signed-by=%s] %s %s main\n' "$type" "$keyring" "$mirror" "$2"
	done >"$1/sources"
	cat >"$1/conf" <<-END
		#clear APT::Update;
		Dir::Etc::sourcelist "$1/sources";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$1/lists";
		Dir::State::status "$1/status";
		Dir::Cache "$1/cache";
		APT::Sandbox::User "root";
	END
}
