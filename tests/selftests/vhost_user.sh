#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/vhost_user.sh
#
# A guest with a disk whose backend is Debian's qemu-storage-daemon, which knows
# nothing of us. It mounts a filesystem there, and writes and reads 64 MiB, and
# meanwhile we look at what the backend has mapped. Runs in the test machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

kernel=$(KVER='' tests/vm/vmlinux)
initrd=$(scripts/guest-initrd --modules)
tmp=$(mktemp -d)
limit=${RM_GUEST_LIMIT:-600} # seconds for a guest
mib=64
daemon='' vm=''
trap 'kill $daemon $vm 2>/dev/null || :; rm -rf "$tmp"' EXIT

why() { last_exits 20; }
record_exits
says() { grep -q "GUEST OK $1" "$tmp/out"; }
stat_of() { sed -n "s/^$1: //p" "$tmp/stats"; }

appears() { # appears TEXT FILE: or the VM ends
	until grep -q "$1" "$2"; do kill -0 "$vm" 2>/dev/null || break; sleep 0.1; done
}

make_disk() {
	rm -rf "$tmp/disk" "$tmp/files"
	mkdir "$tmp/files"
	head -c 4M /dev/urandom >"$tmp/files/host"
	(cd "$tmp/files" && md5sum host >host.md5)
	truncate -s 192M "$tmp/disk"
	/sbin/mkfs.ext4 -q -d "$tmp/files" "$tmp/disk"
}

start_daemon() { # start_daemon DRIVER,filename=DISK
	rm -f "$tmp/socket"
	qemu-storage-daemon --blockdev "node-name=f,driver=$1" \
		--export "vhost-user-blk,id=e,node-name=f,writable=on,addr.type=unix,addr.path=$tmp/socket" \
		>"$tmp/daemon" 2>&1 &
	daemon=$!
	until [[ -S $tmp/socket ]] || ! kill -0 "$daemon"; do sleep 0.1; done
}

stop_daemon() {
	kill "$daemon"
	wait "$daemon" 2>/dev/null || :
	daemon=''
}

start_guest() { # start_guest BACKING WORDS
	timeout $((limit + 20)) build/vmm/rmvm -k "$kernel" -i "$initrd" -m 384M -c 2 -b "$1" -v \
		--vhost-user-blk "$tmp/socket" --backend-timeout 60 -a "quiet rm.do=disk rm.mib=$mib $2" \
		--stats="$tmp/stats" --timeout "$limit" </dev/null >"$tmp/out" 2>"$tmp/err" &
	vm=$!
}

# What the backend has mapped of a VM's memory, in KiB: "SIZE RSS" a line
mappings() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { ours = /restrictedmem/ }
		ours && /^Size:/ { size = $2 }
		ours && /^Rss:/ { print size, $2 }' "/proc/$daemon/smaps" 2>/dev/null || :
}

# Samples while the guest runs. Sets samples (with a mapping), most and most_rss.
watch_backend() {
	local size rss a b
	samples=0 most=0 most_rss=0
	while kill -0 "$vm" 2>/dev/null; do
		size=0 rss=0
		while read -r a b; do size=$((size + a)) rss=$((rss + b)); done < <(mappings)
		((!size)) || samples=$((samples + 1))
		((size <= most)) || most=$size
		((rss <= most_rss)) || most_rss=$rss
		sleep 0.2
	done
	rc=0
	wait "$vm" || rc=$?
	vm=''
	tr -d '\r' <"$tmp/out" | sed 's/^/# /'
	sed 's/^/# /' "$tmp/err" "$tmp/stats" "$tmp/daemon"
}

# The file that the guest wrote, as the host finds it on the disk
guest_file() { /sbin/debugfs -R "cat $1" "$tmp/disk" 2>/dev/null; }
same_file() {
	local sum
	sum=$(guest_file guest | md5sum | cut -d ' ' -f 1)
	[[ $(guest_file guest.md5) == "$sum  guest" ]] && grep -q "md5 $sum" "$tmp/out"
}
fsck_says_so() { /sbin/e2fsck -fn "$tmp/disk" >/dev/null 2>&1; }
windows_kib() {
	local size sum=0
	while read -r size; do sum=$((sum + size / 1024)); done < <(
		sed -n 's/^rmvm: window .* size \(0x[0-9a-f]*\) .*/\1/p' "$tmp/err")
	echo "$sum"
}

echo "TAP version 13"
echo "1..23"

make_disk
start_daemon "file,filename=$tmp/disk"
start_guest in-place rm.share=1
watch_backend
echo "# the backend had $most KiB mapped, $most_rss KiB of that resident, in $samples samples"
is "the guest ends by itself" test "$rc" = 0
is "it reads what the host wrote" says disk-read
is "it writes and reads $mib MiB" says disk-write
is "it unmounts" says disk-umount
is "the host finds the same on the disk" same_file
is "the filesystem is clean" fsck_says_so
is "the backend had windows" test "$samples" -gt 0
is "it never had more than its windows" test "$most" = "$(windows_kib)"
is "nor more resident than that" test "$most_rss" -le "$most"
is "that is the pool, and nothing else of RAM" test "$most" = 4096
is "the guest has 2 MiB mappings still" test "$(stat_of mapped_2m)" -gt 0
is "RAM was there once" test "$(stat_of resident_bytes)" -le $((384 << 20))
is "the backend lives, and has nothing mapped any more" test "$(kill -0 "$daemon" && mappings)" = ""
stop_daemon

# Direct I/O: the host's kernel reads and writes the guest's pages. What /tmp is
# made of has none, a loop device has.
make_disk
modprobe -q loop || :
loop=$(losetup --find --show "$tmp/disk")
start_daemon "host_device,filename=$loop,cache.direct=on"
mib=8
start_guest in-place rm.share=1
watch_backend
is "direct I/O: the guest ends by itself" test "$rc" = 0
is "direct I/O: it writes and reads $mib MiB" says disk-write
stop_daemon
sync
losetup --detach "$loop"
is "direct I/O: the host finds the same on the disk" same_file

# A guest that has the disk read and write where it shares nothing
make_disk
start_daemon "file,filename=$tmp/disk"
mkfifo "$tmp/in"
exec 6<>"$tmp/in"
build/vmm/rmvm -k "$kernel" -i "$initrd" -m 256M -b in-place -v --vhost-user-blk "$tmp/socket" \
	--backend-timeout 60 -a 'quiet rm.do=pages rm.lie=1' --timeout "$limit" \
	<&6 >"$tmp/out" 2>"$tmp/err" &
vm=$!
appears 'nvalid' "$tmp/daemon"
is "a guest that lies: the backend refuses the address" grep -q 'nvalid' "$tmp/daemon"
is "and lives" kill -0 "$daemon"
is "its windows were one page" test "$(windows_kib)" = 4
appears 'GUEST DONE' "$tmp/out"
echo check >&6
appears 'OK fork' "$tmp/out"
is "and the guest goes on" says fork
sed 's/^/# /' "$tmp/err" "$tmp/daemon"
kill "$vm" 2>/dev/null || :
wait "$vm" 2>/dev/null || :
stop_daemon

# Without rmshare.ko the guest's queue is private.
start_daemon "file,filename=$tmp/disk"
start_guest in-place ''
appears 'does not share the queue' "$tmp/err"
is "a guest that shares nothing: it is said" grep -q 'does not share the queue' "$tmp/err"
is "and the backend has nothing" test "$(mappings)" = ""
is "and the VM is still there" kill "$vm"
wait "$vm" 2>/dev/null || :
vm=''
