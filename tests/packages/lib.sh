# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Sourced by tests/packages/run: a Debian of its own, in a folder. Packages are
# installed in it by chroot, which is fast; it is booted, in a copy, in a virtual
# machine. $work and $results are folders for what is temporary and what is not.

: "${work:?}" "${results:?}"
archives=$(cache_dir)/archives
mkdir -p "$archives/partial"

# Debian's entries of this machine's own apt configuration, without the rest
own_sources() {
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format \
		'$(ORIGIN) deb $(REPO_URI) $(CODENAME) $(COMPONENT)' \
		'Created-By: Packages' | sed -n 's/^Debian //p' | sort -u
}

make_root() { # make_root FOLDER
	own_sources >"$1.list"
	[[ -s $1.list ]] || die "no Debian in this machine's apt configuration"
	mmdebstrap --mode=root --variant=minbase --quiet --aptopt='APT::Install-Recommends "false"' \
		--include=systemd-sysv,udev,kmod,dbus,login,passwd,adduser,iproute2,initramfs-tools,zstd \
		bookworm "$1" "$1.list" </dev/null
	rm -f "$1.list"
	mkdir -p "$1/srv/archives" "$1/srv/repo"
	: >"$1/srv/repo/Packages"
	printf 'deb [trusted=yes] file:/srv/repo ./\n' >"$1/etc/apt/sources.list.d/test.list"
	printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
	chmod +x "$1/usr/sbin/policy-rc.d"
	# An initrd for what the machine has is faster to make and to boot.
	echo 'MODULES=list' >"$1/etc/initramfs-tools/conf.d/test"
	printf '%s\n' virtio_pci virtio_blk ext4 >>"$1/etc/initramfs-tools/modules"
}

# A command in the root; what is mounted there goes with it.
in_root() { # in_root FOLDER command...
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount --pid --fork bash -euc '
		mount -t proc proc "$0/proc"
		mount -t sysfs -o ro sysfs "$0/sys"
		mount --bind /dev "$0/dev"
		mount -t tmpfs tmpfs "$0/tmp"
		mount --bind "$1" "$0/srv/archives"
		cp /etc/resolv.conf "$0/etc/resolv.conf"
		exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
			DEBIAN_FRONTEND=noninteractive HOME=/root "${@:2}"
	' "$1" "$archives" "${@:2}" </dev/null
}

apt_in_root() { # apt_in_root FOLDER apt-arguments...
	in_root "$1" apt-get -qy -o Dpkg::Use-Pty=0 -o Dir::Cache::Archives=/srv/archives "${@:2}" \
		>>"$results/apt.log" 2>&1 || {
		tail -n 40 "$results/apt.log" >&2
		die "apt failed: ${*:2}; all of it is in $results/apt.log"
	}
}

# Puts a source there that the series does not fit; Debian's stays as *.debian.
change_source() { # change_source FOLDER
	local tarball=$1/usr/src/linux-source-6.1.tar.xz
	mv "$tarball" "$tarball.debian"
	mkdir "$work/linux-source-6.1"
	(cd "$(scripts/linux-source)" && tar cf - arch/x86/kvm virt/kvm include/linux/kvm_{host,types}.h \
		include/uapi/linux/kvm.h arch/x86/include/asm/kvm_host.h \
		arch/x86/include/uapi/asm/kvm.h) | tar xf - -C "$work/linux-source-6.1"
	sed -i 's/kvm_faultin_pfn/kvm_faultin_a_pfn/' "$work/linux-source-6.1/arch/x86/kvm/mmu/mmu.c"
	tar -C "$work" -cJf "$tarball" linux-source-6.1
	rm -rf "$work/linux-source-6.1"
}

# What apt finds in the root's own repository from now on
publish() { # publish FOLDER deb...
	rm -f "$1"/srv/repo/*
	cp "${@:2}" "$1/srv/repo"
	(cd "$1/srv/repo" && apt-ftparchive packages . >Packages)
	apt_in_root "$1" update
}

# Boots a copy of the root; what /srv/check writes to the second port is the answer.
boot_root() { # boot_root FOLDER KERNEL-RELEASE NAME qemu-options...: into $results/NAME.tap
	local image=$work/disk console=$results/$3.console tap=$results/$3.tap
	rm -f "$image"
	truncate -s 12G "$image"
	mke2fs -q -t ext4 -d "$1" "$image"
	timeout 3600 "$(scripts/vm-qemu)" -accel tcg -cpu max -m 3G -smp 3 -no-reboot -nodefaults \
		-L /usr/share/seabios -no-user-config -display none -serial "file:$console" \
		-serial "file:$tap" -kernel "$1/boot/vmlinuz-$2" -initrd "$1/boot/initrd.img-$2" \
		-append "root=/dev/vda rw console=ttyS0 panic=-1 mitigations=off no_timer_check" \
		-drive "file=$image,format=raw,if=virtio,snapshot=on" "${@:4}" </dev/null >&2 || :
	rm -f "$image"
	grep -q '^1\.\.' "$tap" || { tail -n 30 "$console" >&2; echo "not ok the machine did not get to its end"; }
}
