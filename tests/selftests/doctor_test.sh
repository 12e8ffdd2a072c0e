#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/doctor_test.sh
#
# rmctl doctor on a system on which one thing after the other is put right. Runs
# in a test machine with the kernel's own KVM.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh
export PATH=$PWD/build/tools:$PATH

doctor() { rmctl doctor || :; }
advice() { doctor | grep -A1 -E "^(wrong|note) +$1" | sed -n 's/^ *-> //p'; }

echo "TAP version 13"
updates=/lib/modules/$KVER/updates/dkms

is "nothing: ill" status_is 1 rmctl doctor
is "nothing: says so" has "$(doctor)" "do not work here"
is "nothing: the kernel is right" has "$(doctor)" "ok     kernel   $KVER, Debian's"
is "nothing: module" has "$(doctor)" "not loaded, and not installed for this kernel"
is "nothing: advice" has "$(advice module)" "Install restrictedmem-dkms"
is "nothing: stock KVM is known" has "$(doctor)" "the kernel's own KVM is loaded, and no patched one is installed"
is "nothing: KVM's advice" has "$(advice kvm)" "Install restrictedmem-kvm-dkms"
is "nothing: each wrong line has advice" same "$(doctor | grep -c '^wrong')" "$(doctor | grep -c ' -> ')"

mkdir -p "$updates"
cp restrictedmem.ko "$updates"
depmod "$KVER"
is "installed: module" has "$(advice module)" "modprobe restrictedmem"
modprobe restrictedmem
is "loaded: from where" has "$(doctor)" "ok     module   loaded from $updates/restrictedmem.ko"
is "loaded: the device" has "$(doctor)" "ok     access   /dev/restrictedmem, ABI version 1"
is "loaded: as JSON" same "$(rmctl doctor --json | jq -r '.[] | select(.subject == "module").verdict')" ok

cp "build/kvm-$KVER/kvm.ko" "build/kvm-$KVER/kvm-amd.ko" "$updates"
depmod "$KVER"
is "kvm installed: still the other is loaded" has "$(doctor)" \
	"the kernel's own KVM is loaded; $updates/kvm.ko is installed"
is "kvm installed: advice" has "$(advice kvm)" "modprobe -r kvm_amd kvm; modprobe kvm_amd"
is "kvm installed: ill" status_is 1 rmctl doctor

# As it was advised
modprobe -r kvm_amd kvm
modprobe kvm_amd
is "reloaded: well" status_is 0 rmctl doctor
is "reloaded: says so" has "$(doctor)" "ok     kvm      patched, loaded from $updates/kvm.ko"
is "reloaded: nothing to advise" same "$(doctor | grep -c '^wrong' || :)" 0

chgrp 100 /dev/restrictedmem
chmod 660 /dev/restrictedmem
stranger=(setpriv --reuid 65534 --regid 65534 --clear-groups)
is "no member: ill" status_is 1 "${stranger[@]}" rmctl doctor
is "no member: of which group" has "$("${stranger[@]}" rmctl doctor || :)" \
	"/dev/restrictedmem is for root and the group users"

# Another build than what is installed: the note is cut out of the file.
objcopy --remove-section .note.gnu.build-id restrictedmem.ko "$updates/restrictedmem.ko"
is "updated: noted" has "$(doctor)" "loaded, but another build than $updates/restrictedmem.ko"
is "updated: not ill" status_is 0 rmctl doctor
done_testing
