/* SPDX-License-Identifier: MIT */
#include "mkfs/tool.h"

#include <sched.h>

#include "base/log.h"
#include "base/sync.h"

static void on_damage(void *context, uint64_t offset, const char *text)
{
	struct tool_damage *d = context;

	__atomic_add_fetch(&d->count, 1, __ATOMIC_RELAXED);
	if (!d->quiet)
		log_error("%s: byte %ju: %s", d->path, (uintmax_t)offset, text);
}

int tool_image_open(const char *path, const char *offset_text, struct tool_damage *damage, struct image **ret)
{
	struct io_options io_options = {.caching = IO_CACHING_BUFFERED, .lanes = tool_cpus() * 2};
	struct image_options options = {.offset = IMAGE_OFFSET_AUTO, .on_damage = on_damage, .context = damage};
	char error[IMAGE_ERROR_SIZE];
	struct image *img;
	struct io_file *io;
	int r;

	*damage = (struct tool_damage){.path = path, .quiet = damage->quiet};
	if (offset_text && strcmp(offset_text, "auto") && parse_size(offset_text, &options.offset) < 0) {
		log_error("offset '%s' is neither a number of bytes nor 'auto'", offset_text);
		return -EINVAL;
	}
	r = io_open(path, &io_options, &io);
	if (r < 0) {
		log_error("can't open %s: %s", path,
			r == -ENOTBLK ? "it is neither a file nor a block device" : strerror(-r));
		return r;
	}
	r = image_open(io, &options, &img, error);
	if (r < 0) {
		log_error("%s: %s", path, error);
		io_close(io);
		return r;
	}
	if (image_get_info(img)->from_backup)
		log_warning("%s: the first superblock is damaged; using the copy at the end", path);
	*ret = img;
	return 0;
}

int tool_image_walk(struct image *image, const char *path, struct image_inode *ret)
{
	struct image_inode at;
	int r = image_inode_get(image, PINFS_ROOT_INO, &at);

	while (r == 0) {
		struct image_dirent entry;
		struct image_inode child;
		size_t len;

		while (*path == '/')
			path++;
		len = strcspn(path, "/");
		if (!len)
			break;
		if (len == 1 && path[0] == '.') {
			path += len;
			continue;
		}
		if (len == 2 && path[0] == '.' && path[1] == '.' && S_ISDIR(at.mode)) {
			path += len;
			r = image_inode_get(image, at.arg1, &at);
			continue;
		}
		r = image_dir_lookup(image, &at, path, len, &entry);
		if (r == 0)
			r = image_dir_child(image, &at, &entry, &child);
		if (r == 0)
			at = child;
		path += len;
	}
	if (r < 0)
		return r;
	*ret = at;
	return 0;
}

unsigned tool_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	return (unsigned)MAX(CPU_COUNT(&set), 1);
}

struct worker {
	pthread_t thread;
	unsigned number;
	int result;
	int (*fn)(void *, unsigned);
	void *context;
};

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	w->result = w->fn(w->context, w->number);
	return NULL;
}

int tool_parallel(unsigned threads, int (*fn)(void *context, unsigned worker), void *context)
{
	_cleanup_free_ struct worker *w = NULL;
	unsigned started = 0;
	int r = 0;

	if (threads <= 1)
		return fn(context, 0);
	w = calloc(threads, sizeof(*w));
	if (!w)
		return -ENOMEM;
	for (; started < threads; started++) {
		w[started] = (struct worker){.number = started, .fn = fn, .context = context};
		r = thread_start(&w[started].thread, worker_main, &w[started]);
		if (r < 0)
			break;
	}
	/* Fewer threads than wanted do the same work, only slower. */
	if (!started)
		return fn(context, 0);
	r = 0;
	for (unsigned i = 0; i < started; i++) {
		pthread_join(w[i].thread, NULL);
		if (r == 0)
			r = w[i].result;
	}
	return r;
}

struct progress {
	char label[64];
	uint64_t start;
	atomic_uint_fast64_t total, done, drawn;
};

struct progress *progress_begin(enum progress_mode mode, const char *label, uint64_t total)
{
	struct progress *p;

	if (mode == PROGRESS_NEVER || (mode == PROGRESS_AUTO && !isatty(STDERR_FILENO)))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	snprintf(p->label, sizeof(p->label), "%s", label);
	p->start = now_ns();
	p->total = total;
	log_progress_active(true);
	return p;
}

void progress_set_total(struct progress *p, uint64_t total)
{
	if (p)
		p->total = total;
}

static void progress_draw(struct progress *p, uint64_t done, uint64_t now)
{
	uint64_t total = p->total;
	double seconds = (double)(now - p->start) / 1e9, rate = seconds > 0 ? (double)done / seconds : 0;
	char size[32], speed[32], eta[32] = "", percent[16] = "";

	if (total) {
		uint64_t left = rate > 0 && total > done ? (uint64_t)((double)(total - done) / rate + 0.5) : 0;

		snprintf(percent, sizeof(percent), "%3.0f %%  ", 100.0 * (double)MIN(done, total) / (double)total);
		if (seconds > 0.5)
			snprintf(eta, sizeof(eta), "  ETA %ju:%02ju", (uintmax_t)(left / 60), (uintmax_t)(left % 60));
	}
	fprintf(stderr, "\r\033[K%s  %s%s  %s/s%s", p->label, percent, format_size(done, size, sizeof(size)),
		format_size((uint64_t)rate, speed, sizeof(speed)), eta);
	fflush(stderr);
}

void progress_add(struct progress *p, uint64_t bytes)
{
	uint64_t done, now, drawn;

	if (!p)
		return;
	done = atomic_fetch_add(&p->done, bytes) + bytes;
	now = now_ns();
	drawn = p->drawn;
	if (now - drawn > 200000000 && atomic_compare_exchange_strong(&p->drawn, &drawn, now))
		progress_draw(p, done, now);
}

void progress_end(struct progress *p)
{
	if (!p)
		return;
	log_progress_active(false);
	fputs("\r\033[K", stderr);
	fflush(stderr);
	free(p);
}
