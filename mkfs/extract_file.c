/* SPDX-License-Identifier: MIT */
/*
 * Regular files: the workers and what they do.
 *
 * Small files travel in batches: a batch ends where the data block ends that its files share, so that each block is
 * decompressed by one worker once. A large file is opened by the main thread and cut into segments, which several
 * workers write; whoever finishes the last one gives the file its attributes.
 *
 * Life of a job: made by the main thread with a user of each directory in it; queued (lock); taken by one worker; run;
 * freed, its directories given back. With no thread to be had, the main thread runs it at once.
 */
#include "mkfs/extract_internal.h"

#include <fcntl.h>

#define BATCH_FILES_MAX 1024u
#define BATCH_FILES 64u
#define BATCH_BYTES (512u << 10)
#define SEGMENT_BYTES (8u << 20) /* a multiple of the largest block size */
#define LARGE_BYTES (2 * SEGMENT_BYTES)

/* A file that is being written. */
struct file {
	struct extract_dir *dir; /* has a user */
	const char *name;
	const struct image_inode *inode;
	struct extract_link *link;
	int fd;
	bool final_mode;	/* made with the right owner and mode */
	atomic_int error;	/* -errno of the first failure */
	atomic_int unreadable;	/* -errno of the first piece of content that can't be read */
};

/* A large file, shared by its segments. */
struct large {
	struct file file;
	struct image_inode inode;
	atomic_uint refs; /* one for each segment, one for the main thread while it makes them */
	char name[];
};

struct item {
	struct extract_dir *dir;
	struct extract_link *link;
	bool user;   /* this item has the user of dir, for itself and the ones after it in the same directory */
	size_t name; /* in the job's names */
	struct image_inode inode;
};

struct extract_job {
	struct extract_job *next;
	struct large *large; /* NULL: a batch */
	uint64_t start, end; /* of the segment */
	struct item *items;
	size_t count, capacity;
	char *names;
	size_t names_size, names_capacity;
	uint64_t bytes;
};

/* ---- writing one file ---- */

/* The first one is told. */
static void note_error(atomic_int *where, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(where, &none, error);
}

static int file_open(struct extract *x, struct file *f)
{
	const struct image_inode *i = f->inode;
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, r;
	mode_t mode;

	/* In the usual case the mode can be right from the beginning. */
	f->final_mode = !(i->mode & 07000) && f->dir->plain && (!i->xattr || x->options->no_xattrs) &&
		extract_owner_fits(x, f->dir, i);
	mode = f->final_mode ? i->mode & 0777 : 0600;
	f->fd = openat(f->dir->fd, f->name, flags, mode);
	if (f->fd < 0 && errno == EEXIST) {
		r = extract_dir_clear_way(x, f->dir, f->name);
		if (r < 0)
			return r;
		f->fd = openat(f->dir->fd, f->name, flags, mode);
	}
	return f->fd < 0 ? -errno : 0;
}

/* Writes the data in [start, end). Holes stay holes. Failures are noted in f. */
static void file_write(struct extract *x, struct content_reader *reader, struct file *f, uint64_t start, uint64_t end)
{
	uint64_t at = start;

	while (at < end && !f->error && (!f->unreadable || x->options->keep_damaged)) {
		struct content_piece piece;
		int r = content_next(reader, f->inode, at, end, &piece);

		if (extract_stopped(x)) {
			note_error(&f->error, -EINTR);
			return;
		}
		if (r < 0 || piece.error)
			note_error(&f->unreadable, r < 0 ? r : piece.error);
		/* Nothing to be saved: the map is gone, or nobody wants what is left. */
		if (r < 0 || (piece.error && !x->options->keep_damaged))
			return;
		if (piece.data) {
			r = pwrite_all(f->fd, piece.data, piece.length, at);
			if (r < 0) {
				note_error(&f->error, r);
				return;
			}
			extract_count(&x->stats.bytes, piece.length);
			progress_add(x->progress, piece.length);
		}
		at += piece.length;
	}
}

static void file_remove(struct extract *x, struct file *f)
{
	close(f->fd);
	if (unlinkat(f->dir->fd, f->name, 0) < 0 && errno != ENOENT)
		extract_fail(x, f->dir, f->name, "remove the unfinished", -errno);
	if (f->link)
		f->link->failed = true;
}

static void file_unreadable(struct extract *x, struct file *f)
{
	_cleanup_free_ char *path = extract_path(x, f->dir, f->name);
	int error = f->unreadable;

	extract_count(&x->stats.errors, 1);
	extract_count(&x->stats.damaged, 1);
	log_error("%s: %s in the image; %s", path, error == -EUCLEAN ? "damaged" : strerror(-error),
		x->options->keep_damaged ? "zeros where it can't be read" : "not extracted");
}

/* All is written, or has failed: attributes, or removal. */
static void file_close(struct extract *x, struct file *f)
{
	int error = f->error;

	if (f->unreadable && !error)
		file_unreadable(x, f);
	if (error && error != -EINTR)
		extract_fail(x, f->dir, f->name, "write", error);
	if (error || (f->unreadable && !x->options->keep_damaged)) {
		file_remove(x, f);
		return;
	}
	if (f->final_mode)
		extract_meta_time(x, f->fd, false, f->dir, f->name, f->inode);
	else
		extract_meta_apply(x, f->fd, false, f->dir, f->name, f->inode);
	/* Network filesystems and quotas may say it only now. */
	if (close(f->fd) < 0 && errno != EINTR)
		extract_fail(x, f->dir, f->name, "write", -errno);
	extract_count(&x->stats.files, 1);
}

static void file_not_made(struct extract *x, struct file *f, int error)
{
	if (error != -EINTR)
		extract_fail(x, f->dir, f->name, "make", error);
	if (f->link)
		f->link->failed = true;
}

/* Whether the file ends with a hole, so that writing its data doesn't make it long enough. */
static bool ends_with_hole(struct image *image, const struct image_inode *i)
{
	struct image_map last;

	return i->size && (image_map(image, i, i->size - 1, &last) < 0 || last.hole);
}

static void small_write(struct extract *x, struct content_reader *reader, struct file *f)
{
	int r = file_open(x, f);

	if (r < 0) {
		file_not_made(x, f, r);
		return;
	}
	file_write(x, reader, f, 0, f->inode->size);
	if (!f->error && (f->unreadable || f->inode->layout == PINFS_LAYOUT_NONE ||
		(f->inode->layout == PINFS_LAYOUT_EXTENTS && ends_with_hole(x->image, f->inode))) &&
		f->inode->size && ftruncate(f->fd, (off_t)f->inode->size) < 0)
		note_error(&f->error, -errno);
	file_close(x, f);
}

static void large_put(struct extract *x, struct large *l)
{
	if (!l || atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
		return;
	file_close(x, &l->file);
	extract_dir_put(l->file.dir);
	free(l);
}

/* ---- jobs ---- */

static void job_free(struct extract_job *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->count; i++)
		if (j->items[i].user)
			extract_dir_put(j->items[i].dir);
	free(j->items);
	free(j->names);
	free(j);
}

static void job_run(struct extract *x, struct content_reader *reader, struct extract_job *j)
{
	if (j->large) {
		file_write(x, reader, &j->large->file, j->start, j->end);
		large_put(x, j->large);
	}
	for (size_t i = 0; i < j->count && !extract_stopped(x); i++) {
		struct item *item = &j->items[i];
		struct file f = {
			.dir = item->dir,
			.name = j->names + item->name,
			.inode = &item->inode,
			.link = item->link,
		};

		small_write(x, reader, &f);
	}
	job_free(j);
}

struct worker {
	struct extract *x;
	struct content_reader *reader;
};

static void *worker_main(void *arg)
{
	struct worker w = *(struct worker *)arg;
	struct extract *x = w.x;

	free(arg);
	mutex_lock(&x->lock);
	for (;;) {
		struct extract_job *j = x->queue;

		if (!j && x->closing)
			break;
		if (!j) {
			cond_wait(&x->work, &x->lock);
			continue;
		}
		x->queue = j->next;
		if (!x->queue)
			x->queue_end = &x->queue;
		x->queued--;
		x->running++;
		mutex_unlock(&x->lock);
		job_run(x, w.reader, j);
		mutex_lock(&x->lock);
		x->running--;
		x->finished++;
		cond_signal(&x->room);
	}
	mutex_unlock(&x->lock);
	return NULL;
}

static void job_submit(struct extract *x, struct extract_job *j)
{
	if (!x->thread_count) {
		job_run(x, x->readers[0], j);
		return;
	}
	mutex_lock(&x->lock);
	while (x->queued >= x->queue_limit)
		cond_wait(&x->room, &x->lock);
	j->next = NULL;
	*x->queue_end = j;
	x->queue_end = &j->next;
	x->queued++;
	cond_signal(&x->work);
	mutex_unlock(&x->lock);
}

static void batch_submit(struct extract *x)
{
	if (x->batch)
		job_submit(x, steal_pointer(&x->batch));
}

bool extract_file_wait_some(struct extract *x)
{
	bool any = x->batch;
	uint64_t before;

	mutex_lock(&x->lock);
	before = x->finished;
	mutex_unlock(&x->lock);
	batch_submit(x);
	if (!x->thread_count)
		return any;
	mutex_lock(&x->lock);
	any = x->queued || x->running || x->finished != before;
	while (x->finished == before && (x->queued || x->running))
		cond_wait(&x->room, &x->lock);
	mutex_unlock(&x->lock);
	return any;
}

/* ---- adding files ---- */

/* Puts a file into the batch. */
static int batch_add(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link *link)
{
	size_t len = strlen(name) + 1;
	struct extract_job *j;
	bool user;
	int r;

	/* At first: to open the directory, the workers may have to finish what is in the batch. */
	r = extract_dir_get(x, dir);
	if (r < 0)
		return r;
	j = x->batch;
	if (!j)
		j = x->batch = calloc(1, sizeof(*j));
	r = j ? array_reserve(&j->items, &j->capacity, j->count + 1, sizeof(*j->items)) : -ENOMEM;
	if (r == 0)
		r = array_reserve(&j->names, &j->names_capacity, j->names_size + len, 1);
	user = r == 0 && (!j->count || j->items[j->count - 1].dir != dir);
	if (!user)
		extract_dir_put(dir);
	if (r < 0)
		return r;
	memcpy(j->names + j->names_size, name, len);
	j->items[j->count++] = (struct item){
		.dir = dir, .link = link, .user = user, .name = j->names_size, .inode = *inode};
	j->names_size += len;
	j->bytes += inode->size;
	return 0;
}

/* Whether the batch is large enough to go before this file joins it. */
static bool batch_ends(const struct extract_job *j, const struct image_inode *next)
{
	const struct image_inode *last;

	if (!j || !j->count)
		return false;
	last = &j->items[j->count - 1].inode;
	if (j->count >= BATCH_FILES_MAX)
		return true;
	if (next->layout == PINFS_LAYOUT_PACKED && last->layout == PINFS_LAYOUT_PACKED && next->pos == last->pos)
		return false;
	return j->count >= BATCH_FILES || j->bytes >= BATCH_BYTES;
}

static int segments_submit(struct extract *x, struct large *l)
{
	uint64_t at = 0, size = l->inode.size;

	while (at < size && !extract_stopped(x) && !l->file.error) {
		struct extract_job *j;
		uint64_t data;
		int r = image_seek(x->image, &l->inode, at, false, &data);

		if (r == -ENXIO)
			break; /* the rest is a hole */
		if (r < 0) {
			note_error(&l->file.unreadable, r);
			break;
		}
		j = calloc(1, sizeof(*j));
		if (!j)
			return -ENOMEM;
		j->large = l;
		j->start = data;
		j->end = at = MIN(size, align_down(data, SEGMENT_BYTES) + SEGMENT_BYTES);
		atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
		job_submit(x, j);
	}
	return extract_stopped(x) ? -EINTR : 0;
}

static int large_add(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link *link)
{
	size_t len = strlen(name) + 1;
	struct large *l = calloc(1, sizeof(*l) + len);
	int r = l ? extract_dir_get(x, dir) : -ENOMEM;

	if (r < 0) {
		free(l);
		return r;
	}
	memcpy(l->name, name, len);
	l->inode = *inode;
	l->refs = 1;
	l->file = (struct file){.dir = dir, .name = l->name, .inode = &l->inode, .link = link};
	r = file_open(x, &l->file);
	if (r < 0) {
		file_not_made(x, &l->file, r);
		extract_dir_put(dir);
		free(l);
		return 0;
	}
	/* At first, so that a file which is too large for the filesystem costs nothing. */
	if (ftruncate(l->file.fd, (off_t)inode->size) < 0)
		r = -errno;
	else
		r = segments_submit(x, l);
	if (r < 0)
		note_error(&l->file.error, r);
	large_put(x, l);
	return 0;
}

int extract_file_add(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link *link)
{
	int r;

	if (inode->size > LARGE_BYTES) {
		r = large_add(x, dir, name, inode, link);
	} else {
		if (batch_ends(x->batch, inode))
			batch_submit(x);
		r = batch_add(x, dir, name, inode, link);
	}
	if (r < 0 && r != -EINTR)
		extract_fail(x, dir, name, "make", r);
	if (r < 0 && link)
		link->failed = true;
	return r;
}

/* ---- the workers' life ---- */

static int worker_start(struct extract *x, unsigned n)
{
	struct worker *w = malloc(sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct worker){.x = x, .reader = x->readers[n]};
	r = thread_start(&x->threads[n], worker_main, w);
	if (r < 0)
		free(w);
	return r;
}

int extract_file_start(struct extract *x)
{
	unsigned wanted = x->threads_wanted;

	mutex_init(&x->lock, LOCK_QUEUE);
	cond_init(&x->work);
	cond_init(&x->room);
	x->queue_end = &x->queue;
	x->queue_limit = 2 * wanted + 2;
	x->readers = calloc(wanted, sizeof(*x->readers));
	x->threads = calloc(wanted, sizeof(*x->threads));
	if (!x->readers || !x->threads)
		return -ENOMEM;
	for (; x->reader_count < wanted; x->reader_count++)
		if (content_reader_new(x->image, &x->readers[x->reader_count]) < 0)
			break;
	if (!x->reader_count)
		return -ENOMEM;
	if (wanted == 1)
		return 0;
	/* Fewer threads than wanted do the same work, only slower. */
	while (x->thread_count < x->reader_count && worker_start(x, x->thread_count) == 0)
		x->thread_count++;
	return 0;
}

void extract_file_finish(struct extract *x)
{
	batch_submit(x);
	mutex_lock(&x->lock);
	x->closing = true;
	cond_broadcast(&x->work);
	mutex_unlock(&x->lock);
	for (unsigned i = 0; i < x->thread_count; i++)
		pthread_join(x->threads[i], NULL);
	for (unsigned i = 0; i < x->reader_count; i++)
		content_reader_free(x->readers[i]);
	free(x->readers);
	free(x->threads);
	cond_destroy(&x->work);
	cond_destroy(&x->room);
	mutex_destroy(&x->lock);
}
