/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The module's tracepoints. Files are told apart by inode number, ranges are in
 * pages, [start, end).
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM restrictedmem

#if !defined(RESTRICTEDMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define RESTRICTEDMEM_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(restrictedmem_create,
	TP_PROTO(unsigned long ino, u64 length, u32 flags),
	TP_ARGS(ino, length, flags),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(u64, length)
		__field(u32, flags)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->length = length;
		__entry->flags = flags;
	),
	TP_printk("ino=%lu length=%llu flags=%#x",
		  __entry->ino, __entry->length, __entry->flags)
);

TRACE_EVENT(restrictedmem_link,
	TP_PROTO(unsigned long ino),
	TP_ARGS(ino),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
	),
	TP_fast_assign(
		__entry->ino = ino;
	),
	TP_printk("ino=%lu", __entry->ino)
);

TRACE_EVENT(restrictedmem_bind,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end, u64 owner),
	TP_ARGS(ino, start, end, owner),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
		__field(u64, owner)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->owner = owner;
	),
	TP_printk("ino=%lu start=%#lx end=%#lx owner=%llu",
		  __entry->ino, __entry->start, __entry->end, __entry->owner)
);

DECLARE_EVENT_CLASS(restrictedmem_range,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end),
	TP_ARGS(ino, start, end),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
	),
	TP_printk("ino=%lu start=%#lx end=%#lx",
		  __entry->ino, __entry->start, __entry->end)
);

DEFINE_EVENT(restrictedmem_range, restrictedmem_unbind,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end),
	TP_ARGS(ino, start, end)
);

DEFINE_EVENT(restrictedmem_range, restrictedmem_invalidate,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end),
	TP_ARGS(ino, start, end)
);

DEFINE_EVENT(restrictedmem_range, restrictedmem_poison,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end),
	TP_ARGS(ino, start, end)
);

DEFINE_EVENT(restrictedmem_range, restrictedmem_revoke,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end),
	TP_ARGS(ino, start, end)
);

TRACE_EVENT(restrictedmem_window,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end, bool write),
	TP_ARGS(ino, start, end, write),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
		__field(bool, write)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->write = write;
	),
	TP_printk("ino=%lu start=%#lx end=%#lx write=%d",
		  __entry->ino, __entry->start, __entry->end, __entry->write)
);

TRACE_EVENT(restrictedmem_convert,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end, pgoff_t done,
		 bool private, int error),
	TP_ARGS(ino, start, end, done, private, error),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
		__field(pgoff_t, done)
		__field(bool, private)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->done = done;
		__entry->private = private;
		__entry->error = error;
	),
	TP_printk("ino=%lu start=%#lx end=%#lx done=%#lx private=%d error=%d",
		  __entry->ino, __entry->start, __entry->end, __entry->done,
		  __entry->private, __entry->error)
);

TRACE_EVENT(restrictedmem_populate,
	TP_PROTO(unsigned long ino, pgoff_t start, pgoff_t end, pgoff_t done,
		 int error),
	TP_ARGS(ino, start, end, done, error),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, start)
		__field(pgoff_t, end)
		__field(pgoff_t, done)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->done = done;
		__entry->error = error;
	),
	TP_printk("ino=%lu start=%#lx end=%#lx done=%#lx error=%d",
		  __entry->ino, __entry->start, __entry->end, __entry->done,
		  __entry->error)
);

TRACE_EVENT(restrictedmem_get_pfn,
	TP_PROTO(unsigned long ino, pgoff_t index, unsigned long pfn,
		 unsigned int order, int error),
	TP_ARGS(ino, index, pfn, order, error),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(pgoff_t, index)
		__field(unsigned long, pfn)
		__field(unsigned int, order)
		__field(int, error)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->index = index;
		__entry->pfn = pfn;
		__entry->order = order;
		__entry->error = error;
	),
	TP_printk("ino=%lu index=%#lx pfn=%#lx order=%u error=%d",
		  __entry->ino, __entry->index, __entry->pfn, __entry->order,
		  __entry->error)
);

#endif /* RESTRICTEDMEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE restrictedmem_trace
#include <trace/define_trace.h>
