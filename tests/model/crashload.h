/* SPDX-License-Identifier: MIT */
/*
 * The parts of crashload: crashload.c (options), crashload_run.c (the workers), crashload_state.c (what STATE says),
 * crashload_verify.c (what the directory must hold).
 *
 * STATE is text, one line a record, each appended with one write:
 *
 *	crashload 1 UNIT SEED
 *	W worker				its directory w<worker> is there, and was synced
 *	I worker create NAME FILE		intents, written before the operation begins
 *	I worker write FILE FIRST COUNT VERSION	units
 *	I worker rename FROM TO
 *	I worker unlink NAME
 *	A worker file FILE			acknowledgements, written after the call that syncs has returned
 *	A worker range FILE FIRST COUNT
 *	A worker dir
 *	A worker all
 *	E worker REASON				the worker ended early
 *
 * A worker does one thing after the other, in a directory of its own, so an acknowledgement covers all its intents before.
 * A file's data come in units; each carries its file, version, place and checksum. Files are never made shorter.
 */
#ifndef PINFS_MODEL_CRASHLOAD_H
#define PINFS_MODEL_CRASHLOAD_H

#include "base/util.h"
#include "random.h"

#define NAMES 28u /* of a worker: f0 ... and a few t0 ... for files that are renamed at once */
#define NAMES_TMP 4u
#define UNIT_MAX 4096u
#define UNITS_MAX 256u /* of a file */

struct options {
	uint64_t seed, procs, seconds, ops;
	uint32_t unit;
	bool sync_state, no_syncfs, quiet;
};

/* Content of a unit; len may be less than a unit. */
void unit_fill(uint8_t *buf, uint32_t unit, uint64_t file, uint64_t version, uint32_t index);
/* Whether a unit carries a right checksum; if so, what it says it is. */
bool unit_decode(
	const uint8_t *buf, uint32_t unit, uint64_t *ret_file, uint64_t *ret_version, uint32_t *ret_index);
void name_of(unsigned i, char buf[16]);

int cmd_run(const char *dir, const char *state_path, const struct options *o);
int cmd_verify(const char *dir, const char *state_path, const struct options *o);
int cmd_self_check(const char *dir, const char *state_path, const struct options *o);

/* ---- what STATE says ---- */

/* The states that are allowed, oldest first: v[0] was acknowledged, the others were intended later. */
struct versions {
	uint64_t *v;
	size_t count, capacity;
};

struct unit {
	struct versions versions; /* of its data; 0: never acknowledged, may be missing or zeros */
};

struct cfile {
	uint64_t id;
	struct unit *units;
	uint32_t count;	  /* of units that were intended */
	uint32_t acked;	  /* of units that the size must cover */
	bool linked;	  /* has a name that was acknowledged ... */
	bool may_be_gone; /* ... and an intent that takes the last name away came later */
	unsigned found;	  /* names that verify has seen it under */
};

struct worker {
	bool ready;		      /* its directory must be there */
	struct versions names[NAMES]; /* ids of files; 0: no file */
	struct cfile **files;	      /* by the lower half of the id, 1 ... */
	size_t count, capacity;
};

struct state {
	uint32_t unit;
	uint64_t seed, intents, acks, ended;
	struct worker *workers;
	size_t count, capacity;
};

int state_read(const char *path, struct state *ret);
void state_free(struct state *s);
struct cfile *state_file(const struct state *s, uint64_t id);

static inline uint64_t versions_last(const struct versions *v)
{
	return v->count ? v->v[v->count - 1] : 0;
}
static inline bool versions_allow(const struct versions *v, uint64_t x)
{
	for (size_t i = 0; i < v->count; i++)
		if (v->v[i] == x)
			return true;
	return !v->count && !x;
}

#endif
