/* SPDX-License-Identifier: MIT */
/* The size of a page. The explorer makes it two words, so that what is torn shows and states stay small. */
#ifndef PINFS_CACHE_PAGE_H
#define PINFS_CACHE_PAGE_H

#include <stdint.h>

#ifndef CACHE_PAGE_SHIFT
#define CACHE_PAGE_SHIFT 12u
#endif
#define CACHE_PAGE_SIZE ((uint64_t)1 << CACHE_PAGE_SHIFT)

/* The largest folio: 2^8 pages, 1 MiB. */
#ifndef CACHE_ORDER_MAX
#define CACHE_ORDER_MAX 8u
#endif

#define FRAME_NONE UINT32_MAX

#endif
