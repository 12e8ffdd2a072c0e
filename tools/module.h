/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Is a module loaded, which one would be, and are they the same?
 */
#ifndef MODULE_H
#define MODULE_H

#include <limits.h>

#include "rmctl.h"

/**
 * struct module - what is known of one
 * @name: without .ko, with underscores
 * @loaded: it is in the kernel, as a module
 * @builtin: it is in the kernel, and always was
 * @path: the file that modprobe loads, or an empty string
 * @same: @path is what is loaded
 */
struct module {
	const char *name;
	bool loaded;
	bool builtin;
	char path[PATH_MAX];
	bool same;
};

void module_look_up(struct module *module, const char *name);

/* The loaded module is this file, by its build id. */
bool module_is_from(const struct module *module, const char *path);

#endif /* MODULE_H */
