// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* Run by Go, for an entry that was learned and is to go: here, so that it is one of the moves that learn.h speaks of and no count is lost. */
#include "learn.h"

/* 1: it is gone. */
SEC("syscall")
int forget(struct forget_args *a)
{
	struct fdb_key k = a->key;
	struct learned_mac *l = bpf_map_lookup_elem(&learned, &k);
	__u32 place;
	if (!l)
		return 0;
	place = *(volatile __u32 *)&l->place;
	if (!place)
		return 0;
	if (a->why == FORGET_PLACE && place != a->place)
		return 0;
	if (a->why == FORGET_STALE && !is_stale(l, a->now))
		return 0;
	if (__sync_val_compare_and_swap(&l->place, place, 0) != place)
		return 0;
	leave_room(learner_at(k.vni, place));
	bpf_map_delete_elem(&learned, &k);
	return 1;
}
