/* SPDX-License-Identifier: MIT */
/*
 * The world of the scenarios: a file of a few tiny pages in a cache, address spaces that map it, a disk, and an oracle
 * that knows which bytes each load, store, DMA and written page may have.
 *
 * Each store has a value of its own, so a value tells where it came from. For each word of the file the oracle keeps the
 * values that it may have now; usually one. While pages leave the file (truncation, a hole) there may be several: what
 * was there, zero, what is stored meanwhile.
 */
#ifndef PINFS_EXPLORE_WORLD_H
#define PINFS_EXPLORE_WORLD_H

#include "cache/cache.h"
#include "cache/variant.h"
#include "mm/mm.h"
#include "mm/soft.h"
#include "mm/uffd.h"
#include "engine.h"

#define PAGES 2u	/* of the file */
#define WORDS 2u	/* of a page */
#define PAGE CACHE_PAGE_SIZE
#define SPACES 2u	/* a parent's address space and a child's */

/* Where things are mapped, in each address space. */
#define SHARED_AT ((uint64_t)0x100)
#define MOVED_AT ((uint64_t)0x140)
#define COPY_AT ((uint64_t)0x160) /* the file's first page, private; mapped by who wants it */
#define ANON_AT ((uint64_t)0x180)
#define WINDOW_AT ((uint64_t)0x100)
#define WINDOW_PAGES 12u

#define VALUES 12u
#define FRAMES 8u /* of memory */

/* A value that a word has, or may have. */
struct value {
	uint64_t v;
	uint32_t born, died; /* at which event; died UINT32_MAX: it is still there */
	bool before;	     /* was there before the page began to leave the file */
	bool pending;	     /* of a write under way: not there yet, or already */
};

struct word {
	struct value values[VALUES];
	unsigned count;
};

/* A page as programs see it: of the file, or private to an address space. */
struct page_model {
	struct word words[WORDS];
	unsigned generation; /* counts how often it has left the file */
	unsigned leaving;    /* truncations and holes under way */
};

struct owner {
	uint64_t disk[PAGES][WORDS];
	int reserved[PAGES];
	bool moved[PAGES];	    /* no longer in place */
	unsigned fail_reads, fail_writes, no_space; /* the next so many fail */
	unsigned short_reads, torn_writes;	    /* the next so many do a part of it only */
	unsigned reads_failed, writes_failed, refused; /* that many have failed so far */
	unsigned reads_over;			    /* ... and whoever read has heard of it */
	uint8_t failed_by[EXPLORE_THREADS_MAX];	    /* failed reads that a thread is on the way back from */
};

/* An open file: what it must hear of failed writebacks, and what it may. */
struct world_file {
	struct cache_errseq errors;
	unsigned before, after; /* failures when its last look at them began, and ended */
};

struct world {
	struct cache *cache;
	struct cache_mapping *file;
	struct mm *mm[SPACES];
	struct soft_mmu *mmu[SPACES];
	struct observer {
		struct world *w;
		unsigned space;
	} observers[SPACES];
	struct owner owner;
	struct mutex inode; /* writes and changes of the size */
	struct mutex guard; /* of what actors share for themselves */
	uint64_t image[PAGES][WORDS]; /* what lies in place */
	uint64_t memory[PAGES][WORDS]; /* outside the arena: what a memfd has */
	bool outside;		      /* that is where the file's pages are mapped from */
	unsigned cleared[PAGES];      /* counts how often its place became a hole */
	struct process {	      /* process.c; all zeroes: there is none */
		struct uffd_mmu *uffd;
		struct mm *mm;
		struct soft_mmu *mmu; /* the hardware's view */
		struct pinfs_page table[PAGES];
	} process;

	uint32_t now; /* events */
	uint64_t stored; /* values given out */
	unsigned unit;	 /* bytes of the file's units in the cache */
	unsigned pages;	 /* of the file; more while it becomes shorter */
	struct page_model file_pages[PAGES];
	struct page_model anon[SPACES];
	bool anon_mapped[SPACES];

	bool oom;		       /* allocations may fail */
	struct folio *ballast[FRAMES]; /* what takes the memory away */
};

struct world_options {
	bool xip;	   /* the file's pages lie in place */
	bool populate;	   /* the file's pages are in the cache */
	bool map;	   /* and the first one is mapped */
	bool dirty;	   /* and has been stored to, as the private page */
	bool child;	   /* there is a child that has touched nothing so far */
	bool around;	   /* faults map neighbours, too */
	bool one_unit;	   /* the file's pages are one unit of the cache */
	bool outside;	   /* the file's pages lie in memory outside the arena */
	bool process;	   /* and a process maps them through userfaultfd */
	bool shared_once;  /* the private page was shared with a child that is gone */
	bool tight;	   /* all frames but `spare` are taken, also by this */
	unsigned spare;
	bool oom;	   /* allocations may fail: -ENOMEM is an answer */
};

void world_begin(struct world *w, const struct world_options *options);
/* After all threads have ended: what was stored is on the disk, nothing is reserved, pinned or lost. */
void world_end(struct world *w);

/* A value that nobody has stored so far. */
uint64_t world_value(struct world *w);
/* An operation is over: it may have failed for a reason only. Returns r. */
int world_over(struct world *w, int r);
/* What soft_mmu_new() is to tell; context: &world.observers[]. */
void world_observe(void *context, uint64_t addr, bool write, uint64_t value);
/* A device has stored a word into a page that was of this generation when it got it; leaving: about to leave the file then. */
void world_stored(struct world *w, struct page_model *p, unsigned word, uint64_t v, unsigned generation, bool leaving);
/* A device has loaded a word of a page that is in the file. */
void world_loaded(struct world *w, struct page_model *p, unsigned word, uint64_t v);

/* ---- what actors do, with the oracle beside them ---- */

int world_load(struct world *w, unsigned space, uint64_t addr);
int world_store(struct world *w, unsigned space, uint64_t addr);
/* Pins a page of the shared or private mapping, lets a device store into its first word, and unpins. */
int world_dma(struct world *w, unsigned space, uint64_t addr, unsigned flags, unsigned stores);
/* Pins a page, and the device loads its first word: store: after the program has stored there. */
int world_dma_load(struct world *w, unsigned space, uint64_t addr, bool store);
void world_write(struct world *w, unsigned page);
/* All of a page, which needs no read. */
void world_write_page(struct world *w, unsigned page);
/* A write whose bytes come from a mapping of the same file. */
void world_write_from_mapping(struct world *w, unsigned page);
void world_read(struct world *w, unsigned page);
/* Opens the file, syncs and closes it. */
void world_sync(struct world *w);
void world_open(struct world *w, struct world_file *ret);
/* Each failed writeback since it was opened is heard of once (R13). */
void world_sync_file(struct world *w, struct world_file *file);
void world_truncate(struct world *w, unsigned pages);
void world_punch(struct world *w, unsigned page);
/* Moves the file's pages out of the arena, or back. */
void world_move(struct world *w, bool outside);
void world_fork(struct world *w);

#endif
