#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/host/install_test.sh
#
# make install puts everything where it is found, make uninstall leaves nothing;
# with what is installed, and nothing else, the examples are built.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
kver=$(scripts/kver)

echo "TAP version 13"
make -s install DESTDIR="$root" >"$root/log" 2>&1 || sed 's/^/# /' "$root/log"
rm -f "$root/log"
modules=$root/lib/modules/$kver/updates/restrictedmem
for file in restrictedmem kvm kvm-amd kvm-intel; do
	is "install: $file.ko" test -s "$modules/$file.ko"
done
for file in bin/rmctl bin/rmvm include/restrictedmem.h include/librestrictedmem.h \
	lib/librestrictedmem.so.1 lib/librestrictedmem.a share/man/man1/rmctl.1 \
	share/man/man3/librestrictedmem.3 share/bash-completion/completions/rmctl \
	lib/udev/rules.d/60-restrictedmem.rules lib/modprobe.d/restrictedmem.conf; do
	is "install: $file" test -s "$root/usr/$file"
done

# The program's own view of what is installed
export PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig
read -ra flags < <(pkg-config --cflags --libs librestrictedmem)
is "library: the version" same "$(pkg-config --modversion librestrictedmem)" "$(<VERSION)"
example=$root/usr/share/doc/librestrictedmem-dev/examples/example.c
is "library: the example compiles" gcc -Wall -Wextra -Werror -o "$root/example" "$example" "${flags[@]}"
is "library: and is linked to the shared one" has "$(readelf -d "$root/example")" librestrictedmem.so.1
is "library: a static one" gcc -static -o "$root/static" "$example" "${flags[@]}"
is "library: C++ takes the header" g++ -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ \
	-I"$root/usr/include" "$root/usr/include/librestrictedmem.h"
is "library: only what is promised" same "$(nm -D --defined-only "$root/usr/lib/librestrictedmem.so.1" |
	grep -vE '@@LIBRESTRICTEDMEM_1$| A LIBRESTRICTEDMEM_1$' || :)" ""

cp -r samples/consumer "$root/consumer"
is "consumer: is built against what is installed" make -s -C "$root/consumer" KVER="$kver" \
	RM_SDK="$modules"
is "consumer: needs our module" has "$(modinfo -F depends "$root/consumer/consumer.ko")" restrictedmem
rm -rf "$root"/{consumer,example,static}

make -s uninstall DESTDIR="$root" >/dev/null 2>&1
is "uninstall: nothing is left" same "$(find "$root" -not -type d)" ""
done_testing
