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

cache_dir() {
	local dir=${RM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/restrictedmem}
	mkdir -p "$dir"
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
