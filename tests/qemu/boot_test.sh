#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/qemu/boot_test.sh
#
# Firmware and Debian's kernel with all of their RAM private, in every way that
# QEMU starts them; reset; what the monitor says and may not read. Runs in the
# test machine (tests/qemu/run).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tap.sh
. tests/qemu/lib.sh

linux=(-kernel "/boot/vmlinuz-$KVER" -initrd "$RM_INITRD" -append)
quiet="console=ttyS0 quiet"

echo "TAP version 13"
echo "1..23"

vm_start pc "" "${linux[@]}" "$quiet rm.do=secret,wait"
is "Linux boots through SeaBIOS" see "GUEST WAITS"
memory=$(monitor "info guest-memfd")
is "all of its RAM is private" grep -q '^pc.ram: private 524288 KiB .* shared 0 KiB' <<<"$memory"
is "and resident" test "$(resident "$memory")" -gt 65536
answer=$(monitor "xp /4x 0x1000000")
is "the monitor cannot read it" grep -q 'Cannot access' <<<"$answer"
is "and says why" grep -q "private memory at 0x1000000" <<<"$answer"
is "dumps are refused" grep -q "cannot dump" <<<"$(monitor "dump-guest-memory $tmp/dump")"
is "snapshots are refused" grep -q "neither save nor migrate" <<<"$(monitor "savevm x")"
is "a DMA device is refused later too" grep -q "allow-dma" <<<"$(monitor "device_add e1000")"
monitor system_reset >/dev/null
is "reset boots again" see "GUEST WAITS" 2
is "nothing was converted" grep -q 'shared 0 KiB' <<<"$(monitor "info guest-memfd")"
count_in_core
is "the secret is not in QEMU's core" test "$core" = 0

vm_start pc none "${linux[@]}" "$quiet rm.do=secret,wait"
is "ordinary memory, to compare: boots" see "GUEST WAITS"
count_in_core
is "ordinary memory, to compare: the secret is in the core" test "${core/none/0}" -gt 0

vm_start q35 guest-memfd=on "${linux[@]}" "$quiet rm.do=reboot" -smp 2
is "q35, two processors, guest_memfd: boots, and again by itself" see "GUEST UP" 2
vm_start microvm "" "${linux[@]}" "$quiet rm.do="
is "microvm: boots and ends" ends 120
is "microvm: without a complaint" grep -q "GUEST poweroff" "$tmp/console"

vm_firmware q35 "" OVMF_CODE_4M.fd
is "OVMF reaches its shell" see "UEFI Interactive Shell" 1 200
is "OVMF's RAM is private" grep -q '^pc.ram: private 524288 KiB .* shared 0 KiB' \
	<<<"$(monitor "info guest-memfd")"
monitor system_reset >/dev/null
is "OVMF: reset boots again" see "UEFI Interactive Shell" 2 200

vm_firmware q35 "" OVMF_CODE_4M.fd "${linux[@]}" "$quiet rm.do="
is "Linux boots through OVMF" see "GUEST poweroff" 1 200

vm_firmware q35,smm=on "" OVMF_CODE_4M.secboot.fd -global driver=cfi.pflash01,property=secure,value=on
is "OVMF with SMM reaches its shell" see "UEFI Interactive Shell" 1 300
vm_firmware q35,smm=on "" OVMF_CODE_4M.secboot.fd -global driver=cfi.pflash01,property=secure,value=on \
	"${linux[@]}" "$quiet rm.do=" -smp 2
is "Linux boots through OVMF with SMM, two processors" see "GUEST poweroff" 1 300
is "no device reached for private memory" test ! -s "$tmp/err"
