/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What keeps a guest's mappings right: a vCPU that faults, and everything that may
 * happen at the same time. Checked by spin, for all interleavings; see
 * tests/model/run. docs/locking.rst has the same argument in words.
 *
 * One VM has one slot of two gfns, which together could be one huge page. A gfn's
 * page is in the slot's private half (the file) or in its shared half (a user
 * mapping), as its attribute says. One of the halves is a huge page, the other two
 * pages that are not neighbours: a huge mapping that is made of the wrong half's
 * page shows a stranger's frame to the guest.
 *
 *   vcpu       accesses gfns through a TLB and, when that has nothing, page tables
 *              and faults
 *   converter  KVM_SET_MEMORY_ATTRIBUTES on one or both gfns
 *   discarder  a punch of the file's pages
 *   unmapper   munmap of the user's pages, by way of the MMU notifier
 *   deleter    deletion of the slot, and a new one in its place
 *   prefaulter KVM_PRE_FAULT_MEMORY
 *
 * What must hold: the guest never accesses a frame that is not the gfn's, or that is
 * free, nor, unless a conversion is under way, the half that it is not to see; and
 * everybody comes to an end.
 *
 * Options: HUGE_PRIVATE (else the shared half is huge); VCPU=n vCPUs of ACCESSES=n
 * accesses; CONVERTER=n, DISCARDER=n, UNMAPPER=n rounds of these; DELETER; PREFAULTER;
 * mutants, which have to be found: DECIDE_TWICE, STALE_FLAG,
 * OWED_FLUSH, RETRY_IN_SRCU, WRITE_WITHOUT_ZAP, DISCARD_WITHOUT_LOCK,
 * NO_SEQUENCE.
 */

#define NOTHING	0
#ifdef HUGE_PRIVATE
#define PRIVATE(g)	(2 + (g))
#define SHARED(g)	(4 + 3 * (g))	/* neighbours 5 and 6: strangers */
#else
#define PRIVATE(g)	(4 + 3 * (g))
#define SHARED(g)	(2 + (g))
#endif
#define FRAMES		8
#define FAULTERS	3	/* two vCPUs and the prefaulter */
#define HALF(g, private)	((private) -> PRIVATE(g) : SHARED(g))

/* The host's memory: of our frames, which are in use */
bool used[FRAMES];
/* Is the page in the file, or in the user's page table? */
bool resident[2], present[2];

/* The VM: attributes, by gfn; page tables; what a processor has cached of them */
#ifndef START_PRIVATE
#define START_PRIVATE	false	/* how both gfns begin */
#endif
bool private[2] = START_PRIVATE;
byte spte[2], tlb[2];

/*
 * mmu_lock; mmu_invalidate_seq: who faults notes whether it has moved since, which
 * is all that matters about it; mmu_invalidate_in_progress: zaps of gfns, which every
 * fault waits for, and those of user mappings
 */
bool mmu_lock;
bool moved[FAULTERS];
byte zapping, unmapping;
/* kvm->rmem_converting, slots_lock, the inode's invalidate_lock (its writer) */
bool converting, slots_lock, invalidate_lock;
/* The slot can be used; readers of SRCU, who began before or after its last flip */
bool slot = true;
byte srcu[2];
bit srcu_index;
/* Only the checks look at it. */
bool in_conversion;

#define LOCK(l)		atomic { !l -> l = true }
#define UNLOCK(l)	l = false

#define OURS(g, frame)	((frame) == PRIVATE(g) || (frame) == SHARED(g))

/* Nobody maps what is free; called when something was made so. */
inline check_free() {
	assert(spte[0] == NOTHING || used[spte[0]]);
	assert(spte[1] == NOTHING || used[spte[1]]);
	assert(tlb[0] == NOTHING || used[tlb[0]]);
	assert(tlb[1] == NOTHING || used[tlb[1]])
}

/* With no conversion under way, what is mapped is in the half that is current. */
inline check_half(g) {
	assert(spte[g] == NOTHING || in_conversion || spte[g] == HALF(g, private[g]));
	assert(tlb[g] == NOTHING || in_conversion || tlb[g] == HALF(g, private[g]))
}

inline flush() {
	d_step { tlb[0] = NOTHING; tlb[1] = NOTHING }
}

/* A handler that holds mmu_lock lets somebody else have it, if it likes to; it owes
 * no flush then. */
inline yield(owed) {
	if
	:: true
	:: true ->
		if
		:: owed -> flush(); owed = false
		:: else
		fi;
		UNLOCK(mmu_lock);
		LOCK(mmu_lock)
	fi
}

inline move() {
	moved[0] = true;
	moved[1] = true;
	moved[2] = true
}

inline zap(g, owed) {
	d_step {
		if
		:: spte[g] != NOTHING -> spte[g] = NOTHING; owed = true
		:: else
		fi
	}
}

/* kvm_zap_gfn_range(): the gfns [a, b] */
inline zap_range(a, b, owed) {
	LOCK(mmu_lock);
	zapping++;
	owed = false;
	zap(a, owed);
	if
	:: a != b -> yield(owed); zap(b, owed)
	:: else
	fi;
	if
	:: owed -> flush()
	:: else
	fi;
	d_step { move(); zapping-- };
	UNLOCK(mmu_lock)
}

/*
 * kvm_faultin_pfn() and what comes after it, by the faulter @me. The answer is in
 * @again: what was looked at is no longer so.
 */
inline fault(me, g, again) {
	again = false;
	moved[me] = false;
	is_private = private[g];
	if
	:: is_private ->
		/* get_pfn(): with the invalidate_lock held for reading */
		atomic {
#ifndef DISCARD_WITHOUT_LOCK
			!invalidate_lock ->
#endif
			resident[g] = true;
			used[PRIVATE(g)] = true
		}
	:: else ->
		atomic { present[g] = true; used[SHARED(g)] = true }
	fi;
	frame = HALF(g, is_private);
	LOCK(mmu_lock);
	atomic {
		if
#ifndef NO_SEQUENCE
		:: moved[me] || zapping || (!is_private && unmapping) -> again = true
#endif
#ifndef DECIDE_TWICE
		:: converting -> again = true
#endif
		:: else ->
#ifdef DECIDE_TWICE
			is_private = private[g];
#endif
			if
#ifdef HUGE_PRIVATE
			:: private[0] && private[1] && is_private &&
			   resident[0] && resident[1] ->
#else
			:: !private[0] && !private[1] && !is_private &&
			   present[0] && present[1] ->
#endif
				/* a huge page: the low bits go */
				spte[0] = frame - frame % 2;
				spte[1] = frame - frame % 2 + 1;
				assert(OURS(0, spte[0]) && OURS(1, spte[1]))
			:: else -> spte[g] = frame
			fi;
			check_free();
			check_half(0);
			check_half(1)
		fi;
		frame = 0;
		is_private = false
	}
	UNLOCK(mmu_lock)
}

inline srcu_read_lock() {
	d_step { reading = srcu_index; srcu[reading]++ }
}

inline srcu_read_unlock() {
	d_step { srcu[reading]--; reading = 0 }
}

#ifdef VCPU
active [VCPU] proctype vcpu() {
	byte g, frame, n;
	bool is_private, again;
	bit reading;

	do
	:: n < ACCESSES ->
		n++;
		select(g : 0 .. 1);
		again = tlb[g] == NOTHING && spte[g] == NOTHING;
		do
		:: again ->
			srcu_read_lock();
			if
			:: slot -> fault(_pid, g, again)
			:: else
			fi;
			srcu_read_unlock()
		:: !again -> break
		od;
		/* The page walk fills the TLB. */
		atomic {
			if
			:: spte[g] != NOTHING -> tlb[g] = spte[g]
			:: else
			fi;
			check_free();
			check_half(g);
			g = 0
		}
	:: else -> break
	od
}
#endif

#ifdef PREFAULTER
active proctype prefaulter() {
	byte g, frame;
	bool is_private, again = true;
	bit reading;

	select(g : 0 .. 1);
	srcu_read_lock();
	do
	:: !again -> break
	:: again ->
		if
		:: slot -> fault(FAULTERS - 1, g, again)
		:: !slot ->
#ifdef RETRY_IN_SRCU
			skip
#else
			break	/* EAGAIN */
#endif
		fi
	od;
	srcu_read_unlock()
}
#endif

#ifdef CONVERTER
active proctype converter() {
	byte a, b, n;
	bool to, owed;

	do
	:: n < CONVERTER ->
		n++;
		select(a : 0 .. 1);
		select(b : a .. 1);
		if
		:: to = true
		:: to = false
		fi;
		LOCK(slots_lock);
		if
		:: private[a] == to && private[b] == to
		:: else ->
			in_conversion = true;
			LOCK(mmu_lock);
			converting = true;
			UNLOCK(mmu_lock);
			/* Readers of the map can see it half written. */
			private[a] = to;
			private[b] = to;
#ifndef WRITE_WITHOUT_ZAP
			zap_range(a, b, owed);
#endif
			converting = false;
			d_step {
				in_conversion = false;
				check_half(0);
				check_half(1)
			}
		fi;
		UNLOCK(slots_lock)
	:: else -> break
	od
}
#endif

#ifdef DISCARDER
active proctype discarder() {
	byte a, b, n;
	bool owed;

	do
	:: n < DISCARDER ->
		n++;
#ifdef HUGE_PRIVATE
		a = 0;
		b = 1;
#else
		select(a : 0 .. 1);
		select(b : a .. 1);
#endif
		LOCK(invalidate_lock);
		zap_range(a, b, owed);
		d_step {
			resident[a] = false;
			resident[b] = false;
			used[PRIVATE(a)] = false;
			used[PRIVATE(b)] = false;
			check_free()
		}
		UNLOCK(invalidate_lock)
	:: else -> break
	od
}
#endif

#ifdef UNMAPPER
/* __kvm_handle_hva_range(), and what the kernel does between start and end */
active proctype unmapper() {
	byte a, b, g, n;
	bool owed, all;

	do
	:: n < UNMAPPER ->
		n++;
#ifdef HUGE_PRIVATE
		select(a : 0 .. 1);
		select(b : a .. 1);
#else
		a = 0;
		b = 1;
#endif
		LOCK(mmu_lock);
		unmapping++;
		owed = false;
#ifdef STALE_FLAG
		all = converting;
#endif
		g = a;
		do
		:: g > b -> break
		:: else ->
			/* The next run of shared gfns, or all that is left */
#ifndef STALE_FLAG
			all = converting;
#endif
			if
			:: all || !private[g] ->
				zap(g, owed);
#ifdef OWED_FLUSH
				if
				:: true
				:: true -> UNLOCK(mmu_lock); LOCK(mmu_lock)
				fi
#else
				yield(owed)
#endif
			:: else
			fi;
			g++
		od;
		if
		:: owed -> flush()
		:: else
		fi;
		UNLOCK(mmu_lock);
		d_step {
			present[a] = false;
			present[b] = false;
			used[SHARED(a)] = false;
			used[SHARED(b)] = false;
			check_free()
		}
		LOCK(mmu_lock);
		d_step { move(); unmapping-- };
		UNLOCK(mmu_lock)
	:: else -> break
	od
}
#endif

#ifdef DELETER
active proctype deleter() {
	bool owed;

	LOCK(slots_lock);
	slot = false;
	/* synchronize_srcu() waits for who reads now, not for who comes. */
	srcu_index = 1 - srcu_index;
	srcu[1 - srcu_index] == 0;
	zap_range(0, 1, owed);
	/* The binding goes, and with the file its pages; another slot comes. */
	LOCK(invalidate_lock);
	d_step {
		resident[0] = false;
		resident[1] = false;
		used[PRIVATE(0)] = false;
		used[PRIVATE(1)] = false;
		check_free()
	}
	UNLOCK(invalidate_lock);
	slot = true;
	UNLOCK(slots_lock)
}
#endif
