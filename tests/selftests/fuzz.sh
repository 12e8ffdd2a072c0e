#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Copyright (C) 2026 The restrictedmem authors
#
# The fuzzer, for a short while: its corpus, and what one seed brings. The long form
# is tests/fuzz/run.
set -euo pipefail
. tests/tap.sh

echo 1..3
echo 6 >/proc/sys/vm/nr_hugepages

fuzz() { build/fuzz/fuzz "$@" | sed 's/^/# /'; }

is "sequences that found something once find nothing" fuzz -t 0.1 -c tests/fuzz/corpus
is "results are those of the model" fuzz -m sequential -n 6000 -t 300 -s 13
is "nobody sees pages of others, and nothing is left" fuzz -m concurrent -d -n 6000 -t 300 -s 13
