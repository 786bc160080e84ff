/* SPDX-License-Identifier: MIT */
/* Is what a crash has left one of the states that it may leave? */
#ifndef PINFS_TESTS_CRASH_CHECK_H
#define PINFS_TESTS_CRASH_CHECK_H

#include "model.h"

/* What is known of a crash point. */
struct bounds {
	int names; /* all transactions of operations up to this one are durable */
	int begun; /* no operation behind this one has begun */
};

/* The delta in itself: places, counts, references. For a vfs that was just opened. */
void audit(struct vfs *vfs, struct problem *problem);
/* Against what was done. ret_snap: may be NULL; else to be freed. */
void check_state(struct vfs *vfs, const struct model *model, const struct bounds *bounds, struct snap *ret_snap, struct problem *problem);

#endif
