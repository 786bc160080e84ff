/* SPDX-License-Identifier: MIT */
/* One fault on its way. Private to src/mm. */
#ifndef PINFS_MM_FAULT_H
#define PINFS_MM_FAULT_H

#include "mm/internal.h"

struct fault {
	struct vma *vma; /* referenced */
	uint32_t seq;	 /* of the range, when the fault began */
	uint64_t addr;	 /* of the page */
	bool write;
	bool unshare;	 /* a pin: a private page must be this address space's alone, a page in place one of the cache */
	struct table *table;
};

enum fault_result mm_fault_flags(struct mm *mm, uint64_t addr, bool write, bool unshare);

#endif
