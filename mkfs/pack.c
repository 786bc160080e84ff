/* SPDX-License-Identifier: MIT */
/*
 * Content: files become blocks, blocks are deduplicated, compressed by all processors and written in order.
 *
 *	reader (the caller of pack_file)     workers                        writer
 *	fills jobs, hashes, finds doubles ─► compress or verify a double ─► writes in the order of the jobs
 *
 * The jobs are a ring; `head` is the next to be written, `next` the next to be worked on, `tail` the next to be
 * filled. Which blocks are shared is decided by the reader in the order of reading, and numbers are given by the
 * writer in that same order, so that the image does not depend on the number of threads. A suspected double is
 * compared byte by byte with what was written; where the hash lied, the job becomes an ordinary block. A block that is taken over from
 * another image is read and verified by a worker, and goes to the writer as it is.
 */
#include "mkfs/mkfs.h"

#include "base/log.h"
#include "base/sync.h"
#include "codec/codec.h"
#include "image/image.h"

#define VERIFY_SLOTS 16u /* decompressed blocks that each worker keeps for comparing */
#define WRITE_BATCH 64u

/* Key spaces of the table of known content. */
#define KEY_BLOCK 0ull
#define KEY_SMALL 0x9ddfea08eb382d69ull

enum job_kind {
	JOB_BLOCK,
	JOB_DOUBLE_BLOCK, /* suspected to equal block `candidate` */
	JOB_DOUBLE_FILE,  /* a whole small file, suspected to lie at candidate_offset in block `candidate` */
	JOB_STORED,	  /* as block `candidate` of `image`, whose stored bytes come into `out` */
};

struct job {
	enum job_kind kind;
	uint8_t *raw, *out; /* block_size bytes each */
	uint32_t raw_len, stored;
	unsigned codec;
	bool xip;
	uint32_t align; /* in the containing file; 0: none */
	uint64_t checksum;
	uint64_t candidate; /* a seq */
	uint32_t candidate_offset;
	struct inode *inode; /* JOB_DOUBLE_FILE */
	struct image *image; /* JOB_STORED */
	uint64_t offset;     /* JOB_STORED: in the image */
	bool unique;	     /* is stored as a block of its own */
	bool done;	     /* lock */
};

struct verify_slot {
	uint64_t block; /* + 1; 0: empty */
	uint64_t used;
	uint8_t *raw;
};

struct worker_state {
	struct pack *pack;
	pthread_t thread;
	struct codec_context *codec;
	uint8_t *stored;
	struct verify_slot slots[VERIFY_SLOTS];
	uint64_t clock;
};

struct pack {
	const struct mkfs_options *options;
	struct output *out;
	struct progress *progress;
	uint32_t block_size;

	struct mutex lock;
	struct cond space, work, done;
	struct job *jobs;
	unsigned slots;
	uint64_t head, next, tail; /* lock */
	bool ending;		   /* lock */
	int error;		   /* lock: the first one ends everything */
	bool bad;		   /* lock: a block that was to be taken over is damaged… */
	uint64_t bad_block;	   /* …this one */

	/* Lock while threads run; final after pack_finish(). */
	struct pinfs_block *blocks;
	size_t block_count, block_capacity;
	uint32_t *seq_block;
	size_t seq_capacity;
	uint64_t *pack_seq; /* pack number → seq */
	size_t pack_capacity;

	/* The reader's own. */
	struct hash_table *known;
	uint8_t *open_pack; /* being filled with small files */
	uint32_t open_used;
	uint64_t open_number;
	uint8_t *scratch;
	bool page_align_next; /* an XIP file's last page must not show the next block's bytes */
	struct pack_stats stats;

	uint32_t pending_align; /* the writer's own: alignment that the next stored block must have */

	struct worker_state *workers;
	unsigned started;
	pthread_t writer;
	bool writer_started;
};

static void fail_locked(struct pack *p, int r)
{
	if (!p->error)
		p->error = r;
	cond_broadcast(&p->space);
	cond_broadcast(&p->work);
	cond_broadcast(&p->done);
}

/* ---- workers ---- */

static void compress(struct worker_state *w, struct job *j)
{
	const struct mkfs_options *o = w->pack->options;
	size_t n = 0;

	if (o->compress && !j->xip)
		n = codec_compress_lz4(w->codec, j->raw, j->raw_len, j->out, j->raw_len);
	j->unique = true;
	j->codec = n ? PINFS_CODEC_LZ4 : PINFS_CODEC_RAW;
	j->stored = n ? (uint32_t)n : j->raw_len;
	j->checksum = codec_checksum(n ? j->out : j->raw, j->stored);
}

/* The stored bytes of a block of another image. */
static int fetch(struct pack *p, struct job *j)
{
	int r = image_read_raw(j->image, j->offset, j->stored, j->out);

	if (r == 0 && codec_checksum(j->out, j->stored) != j->checksum)
		r = -EUCLEAN;
	j->unique = true;
	if (r == 0)
		return 0;
	mutex_lock(&p->lock);
	if (!p->bad || j->candidate < p->bad_block)
		p->bad_block = j->candidate;
	p->bad = true;
	mutex_unlock(&p->lock);
	return r;
}

/* The raw bytes of a block that has been written, from the image itself. */
static int read_back(struct worker_state *w, uint32_t number, const struct pinfs_block *b, const uint8_t **ret)
{
	struct pack *p = w->pack;
	struct verify_slot *victim = &w->slots[0];
	uint32_t raw = pinfs_get32(b->raw) & PINFS_BLOCK_RAW_MASK, stored = pinfs_get32(b->stored);
	int r;

	for (unsigned i = 0; i < VERIFY_SLOTS; i++) {
		if (w->slots[i].block == (uint64_t)number + 1) {
			w->slots[i].used = ++w->clock;
			*ret = w->slots[i].raw;
			return 0;
		}
		if (w->slots[i].used < victim->used)
			victim = &w->slots[i];
	}
	if (!victim->raw && !(victim->raw = malloc(p->block_size)))
		return -ENOMEM;
	if (!w->stored && !(w->stored = malloc(p->block_size)))
		return -ENOMEM;
	victim->block = 0;
	r = output_pread(p->out, pinfs_get64(b->offset), w->stored, stored);
	if (r < 0)
		return r;
	r = codec_by_id(pinfs_get32(b->raw) >> PINFS_BLOCK_CODEC_SHIFT)->decompress(w->stored, stored, victim->raw, raw);
	if (r < 0) {
		log_error("block %u of the new image can't be read back: it was damaged on its way to the disk", number);
		return r;
	}
	victim->block = (uint64_t)number + 1;
	victim->used = ++w->clock;
	*ret = victim->raw;
	return 0;
}

static int verify_double(struct worker_state *w, struct job *j, bool *ret_same)
{
	struct pack *p = w->pack;
	struct pinfs_block b;
	const uint8_t *raw;
	uint32_t number, len;
	int r;

	mutex_lock(&p->lock);
	/* The candidate is an earlier job: it never waits for this one, so this wait ends. */
	while (p->head <= j->candidate && !p->error)
		cond_wait(&p->done, &p->lock);
	if (p->error) {
		r = p->error;
		mutex_unlock(&p->lock);
		return r;
	}
	number = p->seq_block[j->candidate];
	b = p->blocks[number];
	mutex_unlock(&p->lock);

	if (p->options->dry_run) {
		*ret_same = true; /* nothing was written to compare with; the hash must do for an estimate */
		return 0;
	}
	len = pinfs_get32(b.raw) & PINFS_BLOCK_RAW_MASK;
	if (j->kind == JOB_DOUBLE_BLOCK ? len != j->raw_len : j->candidate_offset + j->raw_len > len) {
		*ret_same = false;
		return 0;
	}
	r = read_back(w, number, &b, &raw);
	if (r == 0)
		*ret_same = !memcmp(raw + j->candidate_offset, j->raw, j->raw_len);
	return r;
}

static void *worker_main(void *arg)
{
	struct worker_state *w = arg;
	struct pack *p = w->pack;

	for (;;) {
		struct job *j;
		bool same = false;
		int r = 0;

		mutex_lock(&p->lock);
		while (p->next == p->tail && !p->ending && !p->error)
			cond_wait(&p->work, &p->lock);
		if (p->error || p->next == p->tail) {
			mutex_unlock(&p->lock);
			return NULL;
		}
		j = &p->jobs[p->next++ % p->slots];
		mutex_unlock(&p->lock);

		if (j->kind == JOB_STORED)
			r = fetch(p, j);
		else if (j->kind != JOB_BLOCK)
			r = verify_double(w, j, &same);
		if (r == 0 && !same && j->kind != JOB_STORED)
			compress(w, j);

		mutex_lock(&p->lock);
		j->done = true;
		if (r < 0)
			fail_locked(p, r);
		cond_broadcast(&p->done);
		mutex_unlock(&p->lock);
	}
}

/* ---- writer ---- */

/* Gives the job its final number and place; its bytes go into *ret. The lock is held. */
static int place_locked(struct pack *p, struct job *j, uint64_t seq, uint64_t offset)
{
	int r;

	if (!j->unique) {
		p->seq_block[seq] = p->seq_block[j->candidate];
		p->stats.duplicates++;
		p->stats.duplicate_bytes += j->raw_len;
		return 0;
	}
	if (p->block_count >= UINT32_MAX) {
		log_error("more than %u blocks: use a larger block size (-b)", UINT32_MAX);
		return -EFBIG;
	}
	r = array_reserve(&p->blocks, &p->block_capacity, p->block_count + 1, sizeof(*p->blocks));
	if (r < 0)
		return r;
	p->blocks[p->block_count] = (struct pinfs_block){
		.offset = pinfs_put64(offset),
		.stored = pinfs_put32(j->stored),
		.raw = pinfs_put32(j->raw_len | j->codec << PINFS_BLOCK_CODEC_SHIFT),
		.checksum = pinfs_put64(j->checksum),
	};
	p->seq_block[seq] = (uint32_t)p->block_count++;
	p->stats.bytes_stored += j->stored;
	if (j->codec == PINFS_CODEC_RAW)
		p->stats.raw_blocks++;
	if (j->kind == JOB_DOUBLE_FILE) {
		/* Not the double that it seemed to be. */
		j->inode->content = CONTENT_SINGLE;
		j->inode->file.pack = p->seq_block[seq];
		j->inode->file.offset = 0;
	}
	return 0;
}

/* Writes the jobs [from, to) that are done. Called without the lock: nobody else touches them now. */
static int write_jobs(struct pack *p, uint64_t from, uint64_t to)
{
	struct iovec iov[WRITE_BATCH];
	uint64_t offsets[WRITE_BATCH];
	int count = 0, r = 0;
	uint64_t pos;

	for (uint64_t s = from; s < to; s++) {
		struct job *j = &p->jobs[s % p->slots];

		/* A double that asks for alignment hands it to the next block that is really stored. */
		p->pending_align = MAX(p->pending_align, j->align);
		if (j->unique && p->pending_align) {
			r = output_writev(p->out, iov, count);
			count = 0;
			if (r == 0)
				r = output_align(p->out, p->pending_align);
			if (r < 0)
				return r;
			p->pending_align = 0;
		}
		pos = p->out->pos;
		for (int k = 0; k < count; k++)
			pos += iov[k].iov_len;
		offsets[s - from] = pos;
		if (j->unique)
			iov[count++] = (struct iovec){j->codec == PINFS_CODEC_RAW && j->kind != JOB_STORED ? j->raw : j->out, j->stored};
	}
	r = output_writev(p->out, iov, count);
	if (r < 0)
		return r;
	mutex_lock(&p->lock);
	for (uint64_t s = from; r == 0 && s < to; s++)
		r = place_locked(p, &p->jobs[s % p->slots], s, offsets[s - from]);
	mutex_unlock(&p->lock);
	return r;
}

static void *writer_main(void *arg)
{
	struct pack *p = arg;

	mutex_lock(&p->lock);
	for (;;) {
		uint64_t from = p->head, to;
		int r;

		while (!p->error && !(p->ending && p->head == p->tail) &&
			!(p->head < p->next && p->jobs[p->head % p->slots].done))
			cond_wait(&p->done, &p->lock);
		if (p->error || p->head == p->tail)
			break;
		for (to = from; to < p->next && to - from < WRITE_BATCH && p->jobs[to % p->slots].done; to++)
			;
		mutex_unlock(&p->lock);
		r = write_jobs(p, from, to);
		mutex_lock(&p->lock);
		if (r < 0) {
			fail_locked(p, r);
			break;
		}
		for (uint64_t s = from; s < to; s++)
			p->jobs[s % p->slots].done = false;
		p->head = to;
		cond_broadcast(&p->done);
		cond_signal(&p->space);
	}
	mutex_unlock(&p->lock);
	return NULL;
}

/* ---- reader ---- */

/* The next free job; it stays the same one until job_submit(). */
static int job_acquire(struct pack *p, struct job **ret)
{
	int r;

	mutex_lock(&p->lock);
	while (p->tail - p->head >= p->slots && !p->error)
		cond_wait(&p->space, &p->lock);
	r = p->error;
	mutex_unlock(&p->lock);
	if (r < 0)
		return r;
	*ret = &p->jobs[p->tail % p->slots];
	return 0;
}

static int job_submit(struct pack *p, struct job *j, uint64_t *ret_seq)
{
	int r;

	j->unique = false;
	if (p->page_align_next && !j->align)
		j->align = PINFS_PAGE_SIZE;
	p->page_align_next = false;
	mutex_lock(&p->lock);
	r = array_reserve(&p->seq_block, &p->seq_capacity, p->tail + 1, sizeof(*p->seq_block));
	if (r == 0) {
		*ret_seq = p->tail++;
		cond_signal(&p->work);
	}
	mutex_unlock(&p->lock);
	return r;
}

static bool all_zero(const uint8_t *data, size_t len)
{
	return !len || (!data[0] && !memcmp(data, data + 1, len - 1));
}

int pack_extent_add(struct inode *inode, uint64_t lblk, uint64_t seq)
{
	uint32_t n = inode->file.extent_count;
	struct content_extent *e, *last = n ? &inode->file.extents[n - 1] : NULL;

	if (last && last->lblk + last->count == lblk && last->seq + last->count == seq) {
		last->count++;
		return 0;
	}
	/* Powers of two: the capacity needs no field. */
	if (!(n & (n - 1))) {
		e = realloc(inode->file.extents, (n ? (size_t)n * 2 : 1) * sizeof(*e));
		if (!e)
			return -ENOMEM;
		inode->file.extents = e;
	}
	inode->file.extents[inode->file.extent_count++] = (struct content_extent){lblk, seq, 1};
	return 0;
}

/* Submits one filled block of a big file. */
static int store_block(struct pack *p, struct job *j, struct inode *inode, uint64_t lblk)
{
	struct codec_hash128 h = {0};
	uint64_t known = 0, seq;
	int r;

	j->kind = JOB_BLOCK;
	j->candidate_offset = 0;
	if (!p->options->no_dedup) {
		h = codec_hash128(j->raw, j->raw_len);
		if (!j->xip)
			known = hash_table_get(p->known, h.low, h.high ^ KEY_BLOCK);
	}
	if (known) {
		j->kind = JOB_DOUBLE_BLOCK;
		j->candidate = known - 1;
	}
	r = job_submit(p, j, &seq);
	if (r == 0 && !known && !p->options->no_dedup)
		r = hash_table_put(p->known, h.low, h.high ^ KEY_BLOCK, seq + 1);
	if (r == 0)
		r = pack_extent_add(inode, lblk, seq);
	return r;
}

static int pack_close(struct pack *p)
{
	struct job *j;
	uint8_t *raw;
	uint64_t seq = 0;
	int r;

	if (!p->open_used)
		return 0;
	r = job_acquire(p, &j);
	if (r < 0)
		return r;
	raw = j->raw;
	j->raw = p->open_pack;
	p->open_pack = raw;
	j->raw_len = p->open_used;
	j->kind = JOB_BLOCK;
	j->xip = false;
	j->align = 0;
	r = job_submit(p, j, &seq);
	if (r == 0)
		r = array_reserve(&p->pack_seq, &p->pack_capacity, p->open_number + 1, sizeof(*p->pack_seq));
	if (r < 0)
		return r;
	p->pack_seq[p->open_number++] = seq;
	p->open_used = 0;
	return 0;
}

/* A small file whose hash is known. *ret_shared: it is stored already, or will be found out by a job. */
static int share_small(struct pack *p, struct inode *inode, uint64_t number, uint32_t offset, bool *ret_shared)
{
	uint32_t len = (uint32_t)inode->size;
	uint64_t seq;
	struct job *j;
	int r = 0;

	*ret_shared = true;
	if (number == p->open_number) {
		*ret_shared = offset + len <= p->open_used && !memcmp(p->open_pack + offset, p->scratch, len);
		if (*ret_shared) {
			mutex_lock(&p->lock);
			p->stats.duplicates++;
			p->stats.duplicate_bytes += len;
			mutex_unlock(&p->lock);
		}
	} else {
		r = job_acquire(p, &j);
		if (r < 0)
			return r;
		memcpy(j->raw, p->scratch, len);
		j->raw_len = len;
		j->kind = JOB_DOUBLE_FILE;
		j->xip = false;
		j->align = 0;
		j->candidate = p->pack_seq[number];
		j->candidate_offset = offset;
		j->inode = inode;
	}
	if (*ret_shared) {
		inode->content = CONTENT_PACKED;
		inode->file.pack = number;
		inode->file.offset = offset;
	}
	/* Only now, since the writer may change the inode from here on. */
	if (number != p->open_number)
		r = job_submit(p, j, &seq);
	return r;
}

/* Table values of small files: pack number and offset; + 1, since 0 means "unknown". */
#define SMALL_SHIFT 21
static_assert((1u << SMALL_SHIFT) > PINFS_BLOCK_SIZE_MAX, "an offset fits");

/* Packs the file in p->scratch. */
static int store_small(struct pack *p, struct inode *inode)
{
	uint32_t len = (uint32_t)inode->size;
	struct codec_hash128 h = {0};
	int r;

	inode->file.alloc = len;
	if (!p->options->no_dedup) {
		uint64_t known;
		bool shared;

		h = codec_hash128(p->scratch, len);
		known = hash_table_get(p->known, h.low, h.high ^ KEY_SMALL);
		if (known) {
			r = share_small(p, inode, (known - 1) >> SMALL_SHIFT,
				(uint32_t)((known - 1) & ((1u << SMALL_SHIFT) - 1)), &shared);
			if (r < 0 || shared)
				return r;
		}
	}
	if (p->open_used + len > p->block_size) {
		r = pack_close(p);
		if (r < 0)
			return r;
	}
	inode->content = CONTENT_PACKED;
	inode->file.pack = p->open_number;
	inode->file.offset = p->open_used;
	memcpy(p->open_pack + p->open_used, p->scratch, len);
	p->open_used += len;
	p->stats.packed_files++;
	return p->options->no_dedup ? 0 :
				      hash_table_put(p->known, h.low, h.high ^ KEY_SMALL,
					      (inode->file.pack << SMALL_SHIFT | inode->file.offset) + 1);
}

static int small_file(struct pack *p, struct inode *inode, const struct content_source *source)
{
	ssize_t n = source->read(source->context, p->scratch, inode->size, 0);

	if (n < 0)
		return (int)n;
	inode->size = (uint64_t)n;
	p->stats.bytes_read += (uint64_t)n;
	progress_add(p->progress, (uint64_t)n);
	if (all_zero(p->scratch, (size_t)n)) {
		inode->content = CONTENT_NONE;
		p->stats.holes += n > 0;
		return 0;
	}
	return store_small(p, inode);
}

static int big_file(struct pack *p, struct inode *inode, const struct content_source *source, bool xip)
{
	uint64_t offset = 0, size = inode->size;

	while (offset < size) {
		uint32_t want = (uint32_t)MIN((uint64_t)p->block_size, size - offset);
		struct job *j;
		uint64_t seq;
		ssize_t n;
		int r;

		if (source->next_data && !xip) {
			uint64_t data = source->next_data(source->context, offset);

			if (data >= size)
				break;
			offset = MAX(offset, align_down(data, p->block_size));
			want = (uint32_t)MIN((uint64_t)p->block_size, size - offset);
		}
		if (source->stored && !xip && source->stored(source->context, offset, want, &seq)) {
			r = pack_extent_add(inode, offset / p->block_size, seq);
			if (r < 0)
				return r;
			inode->file.alloc += want;
			offset += want;
			continue;
		}
		r = job_acquire(p, &j);
		if (r < 0)
			return r;
		n = source->read(source->context, j->raw, want, offset);
		if (n < 0)
			return (int)n;
		p->stats.bytes_read += (uint64_t)n;
		progress_add(p->progress, (uint64_t)n);
		if (n > 0 && (xip || !all_zero(j->raw, (size_t)n))) {
			j->raw_len = (uint32_t)n;
			j->xip = xip;
			j->align = !xip || offset ? 0 : size >= PINFS_HUGE_ALIGN ? PINFS_HUGE_ALIGN : PINFS_PAGE_SIZE;
			r = store_block(p, j, inode, offset / p->block_size);
			if (r < 0)
				return r;
			inode->file.alloc += (uint64_t)n;
		} else if (n > 0) {
			p->stats.holes++;
		}
		if ((uint32_t)n < want) {
			inode->size = offset + (uint64_t)n; /* it has shrunk */
			break;
		}
		offset += want;
		if (mkfs_interrupted)
			return -EINTR;
	}
	inode->content = inode->file.extent_count ? CONTENT_BLOCKS : CONTENT_NONE;
	return 0;
}

int pack_file(struct pack *p, struct inode *inode, const struct content_source *source, bool xip)
{
	int r;

	inode->content = CONTENT_NONE;
	inode->file.alloc = 0;
	if (!inode->size)
		return 0;
	if (inode->size < p->block_size && !xip && !p->options->no_pack)
		return small_file(p, inode, source);
	r = big_file(p, inode, source, xip);
	if (r == 0 && xip && inode->content == CONTENT_BLOCKS) {
		inode->xip = true;
		p->page_align_next = true;
		p->stats.xip_files++;
	}
	return r;
}

int pack_take(struct pack *p, const struct pack_stored *s, uint64_t *ret_seq)
{
	struct image_block b;
	struct job *j;
	int r = image_block_get(s->image, s->block, &b);

	if (r == 0 && (b.raw > p->block_size || b.stored > p->block_size))
		r = -EUCLEAN;
	if (r == 0)
		r = job_acquire(p, &j);
	if (r < 0)
		return r;
	j->kind = JOB_STORED;
	j->image = s->image;
	j->candidate = s->block;
	j->offset = b.offset;
	j->stored = b.stored;
	j->raw_len = b.raw;
	j->codec = b.codec;
	j->checksum = b.checksum;
	j->xip = false;
	j->align = s->align;
	r = job_submit(p, j, ret_seq);
	if (r < 0)
		return r;
	p->page_align_next = s->align_after;
	p->stats.taken_blocks++;
	p->stats.taken_bytes += b.stored;
	progress_add(p->progress, b.stored);
	return 0;
}

/* ---- life ---- */

static void stop_threads(struct pack *p)
{
	mutex_lock(&p->lock);
	p->ending = true;
	cond_broadcast(&p->work);
	cond_broadcast(&p->done);
	mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->started; i++)
		pthread_join(p->workers[i].thread, NULL);
	p->started = 0;
	/* The writer may wait for a job that only now is done. */
	mutex_lock(&p->lock);
	cond_broadcast(&p->done);
	mutex_unlock(&p->lock);
	if (p->writer_started)
		pthread_join(p->writer, NULL);
	p->writer_started = false;
}

static int start_threads(struct pack *p)
{
	int r;

	for (unsigned i = 0; i < p->options->threads; i++) {
		struct worker_state *w = &p->workers[i];

		w->pack = p;
		r = codec_context_new(p->options->level, &w->codec);
		if (r == 0)
			r = thread_start(&w->thread, worker_main, w);
		if (r < 0)
			return r;
		p->started++;
	}
	r = thread_start(&p->writer, writer_main, p);
	p->writer_started = r == 0;
	return r;
}

int pack_new(const struct mkfs_options *options, struct output *out, struct progress *progress, struct pack **ret)
{
	struct pack *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->options = options;
	p->out = out;
	p->progress = progress;
	p->block_size = options->block_size;
	mutex_init(&p->lock, LOCK_QUEUE);
	cond_init(&p->space);
	cond_init(&p->work);
	cond_init(&p->done);
	/* Enough to keep everybody busy; small blocks need more of them, but never more than 64 MiB. */
	p->slots = MAX(options->threads * 4 + 8, MIN((4u << 20) / p->block_size, 256u));
	p->jobs = calloc(p->slots, sizeof(*p->jobs));
	p->workers = calloc(options->threads, sizeof(*p->workers));
	p->known = hash_table_new();
	p->open_pack = malloc(p->block_size);
	p->scratch = malloc(p->block_size);
	if (!p->jobs || !p->workers || !p->known || !p->open_pack || !p->scratch)
		goto fail;
	for (unsigned i = 0; i < p->slots; i++) {
		p->jobs[i].raw = malloc(p->block_size);
		p->jobs[i].out = malloc(p->block_size);
		if (!p->jobs[i].raw || !p->jobs[i].out)
			goto fail;
	}
	r = start_threads(p);
	if (r < 0)
		goto fail;
	*ret = p;
	return 0;
fail:
	log_error("can't start compressing: %s", strerror(-r));
	pack_free(p);
	return r;
}

int pack_finish(struct pack *p)
{
	int r = pack_close(p);

	if (r < 0) {
		mutex_lock(&p->lock);
		fail_locked(p, r);
		mutex_unlock(&p->lock);
	}
	stop_threads(p);
	return p->error;
}

void pack_free(struct pack *p)
{
	if (!p)
		return;
	mutex_lock(&p->lock);
	if (p->head != p->tail)
		fail_locked(p, -ECANCELED);
	mutex_unlock(&p->lock);
	stop_threads(p);
	for (unsigned i = 0; p->workers && i < p->options->threads; i++) {
		codec_context_free(p->workers[i].codec);
		free(p->workers[i].stored);
		for (unsigned k = 0; k < VERIFY_SLOTS; k++)
			free(p->workers[i].slots[k].raw);
	}
	for (unsigned i = 0; p->jobs && i < p->slots; i++) {
		free(p->jobs[i].raw);
		free(p->jobs[i].out);
	}
	free(p->jobs);
	free(p->workers);
	free(p->blocks);
	free(p->seq_block);
	free(p->pack_seq);
	hash_table_free(p->known);
	free(p->open_pack);
	free(p->scratch);
	mutex_destroy(&p->lock);
	cond_destroy(&p->space);
	cond_destroy(&p->work);
	cond_destroy(&p->done);
	free(p);
}

int pack_error(struct pack *p)
{
	int r;

	mutex_lock(&p->lock);
	r = p->error;
	mutex_unlock(&p->lock);
	return r;
}

bool pack_bad_block(const struct pack *p, uint64_t *ret)
{
	if (p->bad)
		*ret = p->bad_block;
	return p->bad;
}

uint64_t pack_block_count(const struct pack *p)
{
	return p->block_count;
}

const struct pinfs_block *pack_blocks(const struct pack *p)
{
	return p->blocks;
}

uint32_t pack_seq_block(const struct pack *p, uint64_t seq)
{
	return p->seq_block[seq];
}

uint32_t pack_number_block(const struct pack *p, uint64_t number)
{
	return p->seq_block[p->pack_seq[number]];
}

void pack_get_stats(const struct pack *p, struct pack_stats *ret)
{
	*ret = p->stats;
	ret->blocks = p->block_count;
}
