#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/build_kvm_test.sh
#
# The KVM series on a source that is not the one that it was made for: altered
# where the patches look, elsewhere, and in its version.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
kver=$(scripts/kver)
work=$PWD/build/host-tests
rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT

# The parts of the source that are built, as a folder that may be changed
copy() {
	rm -rf "$work/linux"
	mkdir -p "$work/linux"
	(cd "$(scripts/linux-source)" && tar cf - Makefile arch/x86/kvm virt/kvm \
		include/linux/kvm_{host,types}.h include/uapi/linux/kvm.h \
		arch/x86/include/asm/kvm_host.h arch/x86/include/uapi/asm/kvm.h) |
		tar xf - -C "$work/linux"
}

build() { # build: status in rc, messages in said
	rc=0
	said=$(RM_LINUX=$work/linux scripts/build-kvm -o "$work/out" 2>&1) || rc=$?
	printf '%s\n' "# ${said//$'\n'/$'\n'# }"
}
modules() { find "$work/out" -name '*.ko' | wc -l; }

echo "TAP version 13"
copy
patch=0010-fault-in-private-memory.patch
file=$(sed -n 's|^+++ b/||p' "kvm/6.1/$patch" | head -n 1)
# The lines that a hunk expects, but a comment is now between them
context=$(sed -n '/^@@/,$p' "kvm/6.1/$patch" | sed -n 's/^ \(.*[a-z(].*\)$/\1/p' | head -n 1)
awk -v line="$context" '{ print } $0 == line { print "/* new */"; print "/* newer */"; print "/* newest */" }' \
	"$work/linux/$file" >"$work/new"
mv "$work/new" "$work/linux/$file"
build
last=$(tail -n 1 <<<"$said")
is "changed under a hunk: fails" test "$rc" != 0
is "changed under a hunk: names the kernel" has "$last" "no KVM for $kver ("
is "changed under a hunk: names the patch" has "$last" "does not apply: $patch, "
is "changed under a hunk: names the hunk" grep -qE ", hunk #[0-9]+ of $file, line [0-9]+$" <<<"$last"
is "changed under a hunk: says what stays" has "$last" "whose own stays"
is "changed under a hunk: leaves no module" same "$(modules)" 0

copy
rm "$work/linux/$file"
build
is "a file that is gone: fails" test "$rc" != 0
is "a file that is gone: names a patch" has "$(tail -n 1 <<<"$said")" "a file that it changes is not there"

# Applies, but calls what this kernel does not have
copy
cat >>"$work/linux/virt/kvm/kvm_main.c" <<'END'
extern int of_a_later_kernel(void);
int kvm_of_a_later_kernel(void) { return of_a_later_kernel(); }
END
sed -i 's/^SUBLEVEL = .*/SUBLEVEL = 999/' "$work/linux/Makefile"
build
is "a newer source: fails if it cannot be loaded" test "$rc" != 0
is "a newer source: names what is missing" has "$said" "of_a_later_kernel"
is "a newer source: says that it is one" has "$said" "the source is not this kernel's"
is "a newer source: leaves no module" same "$(find "$work/out" -maxdepth 1 -name '*.ko' | wc -l)" 0

copy
sed -i 's/^SUBLEVEL = .*/SUBLEVEL = 999/' "$work/linux/Makefile"
sed -i '1s|^|/* elsewhere */\n|' "$work/linux/virt/kvm/kvm_main.c" "$work/linux/$file"
build
is "changed elsewhere: builds" same "$rc" 0
is "changed elsewhere: says that it is another source" has "$said" "from linux-source-6.1 (6.1.999)"
is "changed elsewhere: so does the module" same "$(modinfo -F kvm_source "$work/out/kvm.ko")" \
	"linux-source-6.1 6.1.999"
is "changed elsewhere: for this kernel" has "$(modinfo -F vermagic "$work/out/kvm.ko")" "$kver "
done_testing
