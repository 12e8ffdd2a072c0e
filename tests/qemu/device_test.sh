#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/qemu/device_test.sh
#
# Disks and network cards for guests with private RAM: those that need no DMA,
# virtio in memory that the guest shares, and all that is refused. Runs in the
# test machine (tests/qemu/run).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/tap.sh
. tests/qemu/lib.sh

linux=(-kernel "/boot/vmlinuz-$KVER" -initrd "$RM_INITRD" -append)
# SeaBIOS would read the boot sector for Linux, and wait for ever if it cannot.
quiet="console=ttyS0 quiet edd=off"
no_dma=capareg=0x052034b4

make_disk() {
	truncate -s 0 "$tmp/disk"
	truncate -s 8M "$tmp/disk"
	for n in 0 1 2 3; do
		echo "host $n" | dd of="$tmp/disk" bs=1M seek="$n" conv=notrunc 2>/dev/null
	done
}

# What the guest wrote, 4 KiB behind what the host did
disk_written() {
	for n in 0 3; do
		[[ $(dd if="$tmp/disk" bs=512 skip=$((n * 2048 + 8)) count=1 2>/dev/null |
			tr -d '\0') == "guest $n" ]] || return 1
	done
}

untouched() { ! grep -aq "guest [0-3]" "$tmp/disk"; }

# refused TEXT MACHINE OBJECT options...: QEMU ends at once, and says TEXT
refused() {
	vm_start "$2" "$3" "${@:4}"
	! ends 30 || { grep -q "$1" "$tmp/err" && return; }
	vm_stop
	return 1
}

not_seen() { ! grep -aq "$1" "$tmp/console"; }

echo "TAP version 13"
echo "1..29"

make_disk
vm_start pc "" "${linux[@]}" "$quiet rm.do=sd,ne2k" \
	-drive "if=none,id=d,format=raw,file=$tmp/disk" \
	-device "sdhci-pci,$no_dma" -device sd-card,drive=d \
	-netdev user,id=n -device ne2k_pci,netdev=n
is "the guest with an SD card and an NE2000 ends" see "GUEST poweroff"
is "its disk works without DMA" grep -q "GUEST OK sd" "$tmp/console"
is "its network works without DMA" grep -q "GUEST OK ne2k" "$tmp/console"
is "what it wrote is on the disk" disk_written
is "nothing reached for private memory" test ! -s "$tmp/err"

# shellcheck disable=SC2054 # the commas are QEMU's
virtio=(-drive "if=none,id=d,format=raw,file=$tmp/disk" -device virtio-blk-pci,drive=d
	-netdev "user,id=n" -device virtio-net-pci,netdev=n)
make_disk
vm_start q35 "" "${linux[@]}" "$quiet rm.do=virtio,wait" "${virtio[@]}"
is "the guest that shares memory for virtio goes on" see "GUEST WAITS"
is "its virtio disk works" grep -q "GUEST OK virtio-disk" "$tmp/console"
is "its virtio network works" grep -q "GUEST OK virtio-net" "$tmp/console"
is "what it wrote is on the virtio disk" disk_written
is "4 MiB are shared, the rest is private" grep -q \
	'^pc.ram: private 520192 KiB .* shared 4096 KiB' <<<"$(monitor "info guest-memfd")"
monitor system_reset >/dev/null
is "reset takes the shared memory back" see "GUEST UP" 2
is "and it works once more" see "GUEST OK virtio-net" 2

make_disk
vm_start pc "" "${linux[@]}" "$quiet rm.do=virtio-alone" "${virtio[@]}"
is "the guest that tries virtio without shared memory ends" see "GUEST poweroff"
is "its disk did not work" not_seen "GUEST OK virtio-alone"
is "and QEMU says why" grep -q "accesses the guest's private memory" "$tmp/err"
is "and nothing was written" untouched

vmlinux=$(tests/vm/vmlinux)
is "refused: an ELF kernel" refused "where QEMU cannot write" pc "" -kernel "$vmlinux"
is "refused: AHCI" refused "ahci reads or writes" q35 "" -device ahci
is "refused: a drive that does DMA" refused "ide-hd reads or writes" pc "" \
	-drive "if=ide,format=raw,file=$tmp/disk"
is "refused: a floppy" refused "floppy reads or writes" pc "" \
	-drive "if=floppy,format=raw,file=$tmp/disk"
is "refused: USB" refused "uhci reads or writes" pc,usb=on ""
is "refused: e1000" refused "e1000 reads or writes" pc "" -device e1000
is "refused: an SD controller with DMA" refused "sdhci-pci reads or writes" pc "" -device sdhci-pci
is "refused: virtio that takes memory for its own" refused "needs iommu_platform=on" pc "" \
	-device virtio-rng-pci,iommu_platform=off
is "refused: fw_cfg's DMA" refused "fw_cfg cannot do DMA" pc "" -global fw_cfg.dma_enabled=on
is "refused: the APIC's option ROM" refused "kvm-apic.vapic patches" pc "" -global kvm-apic.vapic=on
is "refused: preallocation" refused "prealloc would fill" pc,memory-backend=m "" \
	-object memory-backend-ram,id=m,size=512M,prealloc=on
is "refused: SMM on guest_memfd" refused "can be mapped twice" q35,smm=on guest-memfd=on
is "refused: a device that is not there" refused "cannot open /dev/nothing" pc device=/dev/nothing
