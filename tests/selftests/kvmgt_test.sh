#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# Usage: tests/selftests/kvmgt_test.sh
#
# A module of the kernel that needs KVM is loaded beside ours, as it is installed.
# Runs in the test machine, which has no graphics for it to find.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/tap.sh
. tests/tap.sh

echo "TAP version 13"
is "KVM is ours" test -e /sys/module/restrictedmem/holders/kvm
is "kvmgt is loaded" modprobe kvmgt
is "kvmgt uses this KVM" test -e /sys/module/kvm/holders/kvmgt
is "kvmgt is unloaded" rmmod kvmgt
is "kvmgt uses it no longer" test ! -e /sys/module/kvm/holders/kvmgt
done_testing
