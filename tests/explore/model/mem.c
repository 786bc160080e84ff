/* SPDX-License-Identifier: MIT */
/* base/mem.h for the explorer: everything lies in its region, and any allocation may be made to fail. */
#include "base/mem.h"

#include "base/sync.h"
#include "engine.h"

void *mem_alloc(size_t size)
{
	sync_may_sleep("allocation");
	return explore_alloc(size);
}

void mem_free(void *p)
{
	explore_free(p);
}

int mem_region_new(const char *name, size_t size, struct mem_region *ret)
{
	void *base = explore_alloc_aligned(size, 4096);

	if (!base)
		return -ENOMEM;
	explore_name(base, size, "%s", name);
	*ret = (struct mem_region){.base = base, .size = size, .fd = -1};
	return 0;
}

/* Who still uses it finds something else. */
void mem_region_return(const struct mem_region *r, size_t offset, size_t len)
{
	memset(r->base + offset, 0xdd, len);
}

void mem_region_free(struct mem_region *r)
{
	explore_free(r->base);
	*r = (struct mem_region){0};
}
