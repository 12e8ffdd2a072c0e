#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# The functions that the matrix of races delays are there, on each kernel that it is
# run on: a compiler may merge one into another.
set -euo pipefail
. tests/tap.sh

echo 1..1

no_pair() { build/race/race -n 0,0 | sed 's/^/# /'; }

is "all of tests/race/places is there" no_pair
