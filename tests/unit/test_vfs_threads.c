/* SPDX-License-Identifier: MIT */
/* A writable vfs with several threads at once: readers, writers, renamers. */
#include "vfs_support.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/sync.h"

#define CROWD_FILES 6u
#define CROWD_LEN (24u * PAGE)

struct crowd {
	struct vfs *v;
	uint64_t ino[CROWD_FILES], dir[2];
	atomic_uint stop;
};

/* Letters and zeroes are all that is ever written: whoever reads sees nothing else. */
static bool all_letters(const uint8_t *page)
{
	for (unsigned i = 0; i < PAGE; i++)
		if (page[i] && (page[i] < 'a' || page[i] > 'z'))
			return false;
	return true;
}

static void *crowd_writer(void *arg)
{
	static atomic_uint seed;
	struct rng rng = {100 + seed++};
	struct crowd *c = arg;
	uint8_t buf[8 * PAGE];

	while (!c->stop) {
		uint64_t ino = c->ino[rng_below(&rng, CROWD_FILES)], page = rng_below(&rng, 16);
		unsigned n = 1 + (unsigned)rng_below(&rng, 8);
		struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = (8 + rng_below(&rng, 16)) * PAGE};
		struct stat st;

		for (unsigned i = 0; i < n; i++)
			memset(buf + i * PAGE, 'a' + (int)rng_below(&rng, 26), PAGE);
		switch (rng_below(&rng, 10)) {
		case 0:
			must(vfs_setattr(c->v, ino, &set, &st) == 0);
			break;
		case 1:
			must(vfs_fallocate(c->v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, page * PAGE, n * PAGE) == 0);
			break;
		case 2:
			must(vfs_fallocate(c->v, ino, FALLOC_FL_KEEP_SIZE, page * PAGE, n * PAGE) == 0);
			break;
		case 3:
			must(vfs_fsync(c->v, ino, NULL, false) == 0);
			break;
		case 4:
			must(vfs_copy_range(c->v, c->ino[rng_below(&rng, CROWD_FILES)], 0, ino, 0, 8 * PAGE) >= 0);
			break;
		case 5:
			must(delta_checkpoint(vfs_delta(c->v)) == 0);
			break;
		default:
			must(vfs_write(c->v, ino, page * PAGE, buf, n * PAGE, page % 5 ? 0 : VFS_WRITE_SYNC) == (ssize_t)(n * PAGE));
		}
	}
	return NULL;
}

static void *crowd_reader(void *arg)
{
	static atomic_uint seed;
	struct rng rng = {200 + seed++};
	struct crowd *c = arg;
	_cleanup_free_ uint8_t *buf = malloc(CROWD_LEN);
	uint64_t at;

	while (!c->stop) {
		uint64_t ino = c->ino[rng_below(&rng, CROWD_FILES)];
		ssize_t n = read_all(c->v, ino, 0, CROWD_LEN, buf);
		struct vfs_file *f;
		struct stat st;
		int r;

		must(n >= 0 && n % PAGE == 0);
		for (ssize_t i = 0; i < n; i += PAGE)
			must(all_letters(buf + i));
		must(vfs_open(c->v, ino, O_RDONLY, false, &f) == 0);
		must(vfs_getattr(c->v, ino, &st) == 0 && st.st_size <= (off_t)CROWD_LEN);
		r = vfs_seek(c->v, ino, 0, rng_below(&rng, 2), &at);
		must(r == 0 || r == -ENXIO);
		vfs_release(c->v, f);
	}
	return NULL;
}

static void *crowd_renamer(void *arg)
{
	static atomic_uint seed;
	unsigned self = seed++;
	struct rng rng = {300 + self};
	struct crowd *c = arg;
	uint8_t byte = 1;

	while (!c->stop) {
		uint64_t from = c->dir[rng_below(&rng, 2)], to = c->dir[rng_below(&rng, 2)];
		char a[32], b[32];
		struct stat st;
		int r;

		snprintf(a, sizeof(a), "n%u", (unsigned)rng_below(&rng, 6));
		snprintf(b, sizeof(b), "n%u", (unsigned)rng_below(&rng, 6));
		switch (rng_below(&rng, 6)) {
		case 0:
			r = vfs_mknod(c->v, from, a, S_IFREG | 0600, 0, &cred, &st);
			must(r == 0 || r == -EEXIST);
			if (r == 0) {
				must(vfs_write(c->v, st.st_ino, 0, &byte, 1, 0) == 1);
				vfs_forget(c->v, st.st_ino, 1);
			}
			break;
		case 1:
			r = vfs_unlink(c->v, from, a);
			must(r == 0 || r == -ENOENT);
			break;
		case 2:
			r = vfs_lookup(c->v, from, a, &st);
			must(r == 0 || r == -ENOENT);
			if (r == 0) {
				struct stat again;

				must(vfs_getattr(c->v, st.st_ino, &again) == 0);
				r = vfs_link(c->v, st.st_ino, to, b, &again);
				must(r == 0 || r == -EEXIST);
				vfs_forget(c->v, st.st_ino, r == 0 ? 2 : 1);
			}
			break;
		default:
			r = vfs_rename(c->v, from, a, to, b, rng_below(&rng, 4) ? 0 : RENAME_EXCHANGE, &cred);
			must(r == 0 || r == -ENOENT);
		}
	}
	return NULL;
}

static void readers_writers_and_renamers_at_once(void **state)
{
	static void *(*const mains[])(void *) = {crowd_writer, crowd_writer, crowd_reader, crowd_reader, crowd_renamer, crowd_renamer};
	pthread_t threads[ARRAY_SIZE(mains)];
	struct timespec begin, now;
	struct crowd c = {0};
	struct memstore m;
	struct stat st;

	memstore_init(&m, 0);
	c.v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < CROWD_FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "crowd%u", i);
		c.ino[i] = make_file(c.v, name);
	}
	for (unsigned i = 0; i < 2; i++) {
		must(vfs_mkdir(c.v, VFS_ROOT_INO, i ? "d1" : "d0", 0755, &cred, &st) == 0);
		c.dir[i] = st.st_ino;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		must(thread_start(&threads[i], mains[i], &c) == 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		usleep(20000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec < 3);
	c.stop = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	must(vfs_sync(c.v) == 0);
	delta_account(vfs_delta(c.v));
	vfs_free(c.v);
	c.v = open_on(&m, 4u << 20, 0);
	delta_account(vfs_delta(c.v));
	vfs_free(c.v);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_writers_and_renamers_at_once),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("vfs_threads", tests, vfs_setup, vfs_teardown);
}
