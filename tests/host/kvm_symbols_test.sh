#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/kvm_symbols_test.sh
#
# The modules of the kernel that import symbols of its kvm.ko, other than those that
# we replace, find all of them in ours, with the versions that they were built with.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
kver=$(scripts/kver)
modules=/lib/modules/$kver
ours=build/kvm-$kver/tree/arch/x86/kvm/Module.symvers
theirs=${KDIR:-$modules/build}/Module.symvers

users() { # the files of modules that depend on kvm.ko
	awk -F : '$1 !~ /\/kvm-(amd|intel)\.ko/ && $2 ~ /\/kvm\.ko/ { print $1 }' "$modules/modules.dep"
}

imports() { # imports FILE: "symbol version" of what it takes from the kernel's kvm.ko
	modprobe --dump-modversions "$modules/$1" |
		awk 'NR == FNR { if ($3 ~ /\/kvm$/) kvm[$2]; next } $2 in kvm { print $2, $1 }' "$theirs" -
}

# From imports on standard input: what is not in ours like that
unresolved() {
	awk 'NR == FNR { if ($3 ~ /\/kvm$/) version[$2] = $1; next }
		version[$1] != $2 { print $1, $2, "is", version[$1] ? version[$1] : "missing" }' "$ours" -
}

echo "TAP version 13"
is "the kernel has modules that need KVM" has "$(users)" .ko
while read -r file; do
	name=${file##*/}
	list=$(imports "$file")
	echo "# $name: $(cut -d' ' -f1 <<<"$list" | tr '\n' ' ')"
	is "$name: imports symbols of kvm.ko" test -n "$list"
	is "$name: finds all of them in ours" same "$(unresolved <<<"$list" | paste -sd ';')" ""
done < <(users)

# What genksyms does not see, the kernel's own vendor modules do not know either: they
# embed our structs. They must not be taken for ours, nor ours with the kernel's kvm.ko.
for name in kvm-amd kvm-intel; do
	file=$(awk -F : -v n="/$name.ko" 'index($1, n) { print $1; exit }' "$modules/modules.dep")
	is "$name.ko of the kernel: cannot be loaded with our kvm.ko" \
		has "$(imports "$file" | unresolved)" "kvm_init"
	is "$name.ko of ours: cannot be loaded with the kernel's kvm.ko" \
		has "$(nm -u "build/kvm-$kver/$name.ko")" kvm_init_with_private_mem
done
done_testing
