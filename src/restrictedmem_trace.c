// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The tracepoints' bodies.
 */
#define CREATE_TRACE_POINTS
#include "restrictedmem_trace.h"
