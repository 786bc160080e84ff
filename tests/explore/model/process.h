/* SPDX-License-Identifier: MIT */
/*
 * A process that maps the file through userfaultfd (mm/uffd.h), with a model of the kernel's side: what it loads and stores, and what
 * devices do with pages that it has pinned by the count in its table (pinfs/protocol.h), as libpinfs has it.
 *
 * Used by: world.c, actors.c. Its faults from inside the kernel are answered by nobody (UFFD_USER_MODE_ONLY): what it has pinned must
 * be there, and writable, whenever a device is told to use it.
 */
#ifndef PINFS_EXPLORE_PROCESS_H
#define PINFS_EXPLORE_PROCESS_H

#include "model/world.h"

void process_begin(struct world *w);
/* It is gone, with all that it has. */
void process_end(struct world *w);
/* These pages of the memfd are a hole now. */
void process_clear(struct world *w, uint64_t page, unsigned count);

void process_load(struct world *w, unsigned page);
void process_store(struct world *w, unsigned page);
/* Pins a page; a device stores into its first word so many times. */
void process_dma(struct world *w, unsigned page, unsigned stores);
/* Pins a page, and a device loads its first word. */
void process_dma_load(struct world *w, unsigned page);

#endif
