# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# For files with functions that run in a guest: no call of a library, no table
# and no guard that the compiler thinks of may be in them.
guest-cflags := -fno-stack-protector -fcf-protection=none -fno-jump-tables \
		-fno-tree-loop-distribute-patterns
