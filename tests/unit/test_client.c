/* SPDX-License-Identifier: MIT */
/* libpinfs, with a server in this process: maps, pins, errors, threads, fork. */
#include "vfs_support.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sync.h"
#include "client/internal.h"
#include "mm/uffd.h"
#include "share/share.h"

#define CACHE (8u << 20)
#define PAGES 40u
#define SIZE (PAGES * PAGE - 1000)

struct fixture {
	struct memstore m;
	struct vfs *v;
	struct share *share;
	struct connection *connection;
	uint64_t ino;
	uint8_t want[SIZE];
};
static struct fixture f;

static struct connection *connect_to_share(void)
{
	struct connection *c;
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	must(share_connect(f.share, ends[1]) == 0);
	must(connection_new(ends[0], &c) == 0);
	return c;
}

static void begin(void)
{
	struct share_options o = {.name = "image"};
	struct rng rng = {5};

	memstore_init(&f.m, 0);
	f.v = open_on(&f.m, CACHE, 0);
	f.ino = make_file(f.v, "f");
	fill(&rng, f.v, f.ino, 0, f.want, SIZE);
	o.vfs = f.v;
	assert_int_equal(share_new(&o, &f.share), 0);
}

static void end(void)
{
	for (unsigned i = 0; share_clients(f.share); i++) {
		must(i < 10000000);
		sched_yield();
	}
	share_free(f.share);
	assert_false(vfs_is_shared(f.v, f.ino));
	assert_int_equal(vfs_sync(f.v), 0);
	vfs_free(f.v);
	memstore_destroy(&f.m);
	assert_int_equal(sync_violations(), 0);
}

static int map_range(uint64_t offset, size_t length, int prot, bool write, struct pinfs_map **ret)
{
	uint8_t token[PINFS_TOKEN_SIZE];

	must(share_token(f.share, f.ino, write, token) == 0);
	return map_by_token(connect_to_share(), token, offset, length, prot, NULL, ret);
}

static struct pinfs_map *map_all(void)
{
	struct pinfs_map *map;

	must(map_range(0, SIZE, PROT_READ | PROT_WRITE, true, &map) == 0);
	return map;
}

static struct pinfs_page_info info(struct pinfs_map *map, unsigned page)
{
	struct pinfs_page_info i;

	must(pinfs_query(map, page * PAGE, 1, &i) == 0);
	return i;
}

static void maps_show_and_change_the_file(void **state)
{
	struct pinfs_map *map, *part;
	uint8_t *bytes;

	begin();
	map = map_all();
	bytes = pinfs_map_address(map);
	assert_memory_equal(bytes, f.want, SIZE);
	memset(bytes + 100, 'a', 10000);
	memset(f.want + 100, 'a', 10000);
	assert_int_equal(pinfs_sync(map), 0);
	/* A part that begins and ends anywhere. */
	assert_int_equal(map_range(5000, 9000, PROT_READ, false, &part), 0);
	assert_memory_equal(pinfs_map_address(part), f.want + 5000, 9000);
	bytes[6000] = f.want[6000] = 'b';
	assert_int_equal(((uint8_t *)pinfs_map_address(part))[1000], 'b');
	assert_int_equal(pinfs_unmap(part), 0);
	assert_int_equal(pinfs_unmap(map), 0);
	assert_int_equal(pinfs_unmap(NULL), 0);
	assert_true(file_is(f.v, f.ino, f.want, SIZE));
	end();
}

static void pins_count(void **state)
{
	struct pinfs_map *map;

	begin();
	map = map_all();
	assert_int_equal(pinfs_pin(map, 0, SIZE, PINFS_READ | PINFS_NOWAIT), -EAGAIN);
	assert_int_equal(info(map, 0).readers, 0);
	assert_int_equal(pinfs_pin(map, 3 * PAGE, 2 * PAGE + 1, PINFS_WRITE), 0);
	assert_int_equal(pinfs_pin(map, 4 * PAGE, 1, PINFS_WRITE | PINFS_NOWAIT), 0);
	assert_int_equal(info(map, 2).writers, 0);
	assert_int_equal(info(map, 3).writers, 1);
	assert_int_equal(info(map, 4).writers, 2);
	assert_int_equal(info(map, 5).writers, 1);
	assert_int_equal(info(map, 5).flags, PINFS_IS_PRESENT | PINFS_IS_WRITABLE);
	assert_int_equal(pinfs_pin(map, 5 * PAGE, 1, PINFS_READ), 0);
	assert_int_equal(info(map, 5).readers, 1);
	assert_int_equal(pinfs_unmap(map), -EBUSY);
	assert_int_equal(vfs_fsync(f.v, f.ino, NULL, false), 0);
	assert_int_equal(info(map, 4).flags, PINFS_IS_PRESENT | PINFS_IS_WRITABLE | PINFS_IS_HELD);
	assert_int_equal(pinfs_unpin(map, 3 * PAGE, 3 * PAGE, PINFS_WRITE), 0);
	assert_int_equal(pinfs_unpin(map, 3 * PAGE, 1, PINFS_WRITE), -EINVAL);
	assert_int_equal(pinfs_unpin(map, 4 * PAGE, 1, PINFS_WRITE), 0);
	assert_int_equal(info(map, 4).flags & (PINFS_IS_HELD | PINFS_IS_WRITABLE), 0);
	assert_int_equal(pinfs_unpin(map, 5 * PAGE, 1, PINFS_READ), 0);
	for (unsigned i = 0; i < 65535; i++)
		assert_int_equal(pinfs_pin(map, 0, 1, PINFS_READ), 0);
	assert_int_equal(pinfs_pin(map, 0, 1, PINFS_READ), -EAGAIN);
	assert_int_equal(pinfs_pin(map, 0, 1, PINFS_WRITE), 0);
	assert_int_equal(info(map, 0).readers, 65535);
	assert_int_equal(pinfs_unpin(map, 0, 1, PINFS_WRITE), 0);
	for (unsigned i = 0; i < 65535; i++)
		assert_int_equal(pinfs_unpin(map, 0, 1, PINFS_READ), 0);
	assert_int_equal(pinfs_unmap(map), 0);
	end();
}

static void what_cannot_be_is_said(void **state)
{
	struct pinfs_page_info one;
	struct pinfs_map *map;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	begin();
	assert_int_equal(map_range(0, SIZE, PROT_READ | PROT_WRITE, false, &map), -EACCES);
	assert_int_equal(map_range((uint64_t)1 << 50, SIZE, PROT_READ, true, &map), -EINVAL);
	assert_int_equal(pinfs_map(fd, 0, PAGE, PROT_READ, NULL, &map), -ENOTTY);
	assert_int_equal(pinfs_map(fd, 0, 0, PROT_READ, NULL, &map), -EINVAL);
	assert_int_equal(pinfs_map(fd, 0, PAGE, PROT_WRITE, NULL, &map), -EINVAL);
	assert_int_equal(pinfs_map(fd, 0, PAGE, PROT_READ | PROT_EXEC, NULL, &map), -EINVAL);
	assert_int_equal(pinfs_map(fd, UINT64_MAX - 5, PAGE, PROT_READ, NULL, &map), -EINVAL);
	assert_int_equal(pinfs_map(fd, 0, PAGE, PROT_READ, &(struct pinfs_map_options){.size = 3}, &map), -EINVAL);
	assert_int_equal(map_range(0, SIZE + 5 * PAGE, PROT_READ, true, &map), 0);
	assert_int_equal(pinfs_pin(map, 0, 1, PINFS_WRITE), -EACCES);
	assert_int_equal(pinfs_pin(map, 0, 1, PINFS_READ | PINFS_WRITE), -EINVAL);
	assert_int_equal(pinfs_pin(map, 0, 1, 0), -EINVAL);
	assert_int_equal(pinfs_pin(map, 0, 1, 1u << 9), -EINVAL);
	assert_int_equal(pinfs_pin(map, 0, 0, PINFS_READ), -EINVAL);
	assert_int_equal(pinfs_pin(map, SIZE + 5 * PAGE, 1, PINFS_READ), -EINVAL);
	assert_int_equal(pinfs_query(map, SIZE, SIZE_MAX, &one), -EINVAL);
	/* Some of it is there, and some behind the end: none is pinned. */
	assert_int_equal(pinfs_pin(map, 0, SIZE + PAGE, PINFS_READ), -EFAULT);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(info(map, p).readers, 0);
	assert_int_equal(pinfs_populate(map, 0, SIZE + 5 * PAGE, PINFS_READ), 0);
	assert_int_equal(pinfs_pin(map, 0, SIZE, PINFS_READ | PINFS_NOWAIT), 0);
	assert_int_equal(pinfs_unpin(map, 0, SIZE, PINFS_READ), 0);
	assert_int_equal(pinfs_unmap(map), 0);
	close(fd);
	end();
}

static void a_child_has_no_maps(void **state)
{
	struct pinfs_map *map;
	int status;
	pid_t child;

	begin();
	map = map_all();
	assert_int_equal(pinfs_pin(map, 0, PAGE, PINFS_WRITE), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		unsigned char there;

		must(pinfs_pin(map, 0, 1, PINFS_READ) == -EPIPE);
		must(pinfs_sync(map) == -EPIPE);
		must(mincore(pinfs_map_address(map), PAGE, &there) < 0 && errno == ENOMEM);
		must(pinfs_unmap(map) == 0);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	/* The parent's are as they were. */
	assert_int_equal(info(map, 0).writers, 1);
	assert_int_equal(pinfs_unpin(map, 0, PAGE, PINFS_WRITE), 0);
	assert_int_equal(pinfs_sync(map), 0);
	assert_int_equal(pinfs_unmap(map), 0);
	end();
}

static void without_the_daemon_calls_fail_and_end(void **state)
{
	struct pinfs_map *map;

	begin();
	map = map_all();
	assert_int_equal(pinfs_pin(map, 0, PAGE, PINFS_READ), 0);
	share_free(f.share);
	assert_int_equal(pinfs_sync(map), -EPIPE);
	assert_int_equal(pinfs_pin(map, 9 * PAGE, PAGE, PINFS_READ), -EPIPE);
	assert_int_equal(pinfs_populate(map, 0, PAGE, PINFS_READ), -EPIPE);
	pinfs_unpin(map, 0, PAGE, PINFS_READ);
	assert_int_equal(pinfs_unmap(map), 0);
	assert_int_equal(share_new(&(struct share_options){.vfs = f.v, .name = "image"}, &f.share), 0);
	end();
}

/* ---- threads ---- */

#define WORKERS 3u

struct worker {
	struct pinfs_map *map;
	struct a32 *stop;
	unsigned no, rounds;
	pthread_t thread;
};

/* Each has some bytes of each page; the kernel reads and writes them by pins of one page or several. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint8_t *base = pinfs_map_address(w->map), mine[PAGES] = {0}, buf[64];
	struct rng rng = {w->no + 7};
	int pipes[2];

	must(pipe(pipes) == 0);
	while (!a32_read(w->stop)) {
		unsigned p = (unsigned)rng_below(&rng, PAGES - 3), n = 1 + (unsigned)rng_below(&rng, 3);
		bool write_pin = rng_below(&rng, 2);

		must(pinfs_pin(w->map, p * PAGE, n * PAGE, write_pin ? PINFS_WRITE : PINFS_READ) == 0);
		for (unsigned i = p; i < p + n; i++) {
			uint8_t *bytes = base + i * PAGE + 64 * w->no;

			if (write_pin) {
				mine[i] = (uint8_t)rng_next(&rng);
				memset(buf, mine[i], sizeof(buf));
				must(write(pipes[1], buf, sizeof(buf)) == sizeof(buf));
				must(read(pipes[0], bytes, sizeof(buf)) == sizeof(buf));
			} else {
				must(write(pipes[1], bytes, sizeof(buf)) == sizeof(buf));
				must(read(pipes[0], buf, sizeof(buf)) == sizeof(buf));
				for (unsigned k = 0; mine[i] && k < sizeof(buf); k++)
					must(buf[k] == mine[i]);
			}
		}
		must(pinfs_unpin(w->map, p * PAGE, n * PAGE, write_pin ? PINFS_WRITE : PINFS_READ) == 0);
		w->rounds++;
	}
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

static void threads_pin_while_pages_are_cleaned_and_dropped(void **state)
{
	struct worker w[WORKERS];
	struct cache_stats stats;
	struct pinfs_map *map;
	struct a32 stop = {0};
	uint8_t *buf = malloc(SIZE);

	begin();
	map = map_all();
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){.map = map, .stop = &stop, .no = i};
		assert_int_equal(thread_start(&w[i].thread, worker_main, &w[i]), 0);
	}
	do {
		must(vfs_fsync(f.v, f.ino, NULL, false) == 0);
		must(pinfs_sync(map) == 0);
		cache_reclaim(vfs_cache(f.v), 16 * PAGE);
		vfs_cache_stats(f.v, &stats);
	} while (stats.count.pgsteal < 300 || stats.count.pgdirty_pinned < 30);
	a32_set(&stop, 1);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(w[i].thread, NULL);
	assert_int_equal(pinfs_sync(map), 0);
	assert_int_equal(read_all(f.v, f.ino, 0, SIZE, buf), SIZE);
	assert_memory_equal(buf, pinfs_map_address(map), SIZE);
	assert_int_equal(pinfs_unmap(map), 0);
	free(buf);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(maps_show_and_change_the_file),
		cmocka_unit_test(pins_count),
		cmocka_unit_test(what_cannot_be_is_said),
		cmocka_unit_test(a_child_has_no_maps),
		cmocka_unit_test(without_the_daemon_calls_fail_and_end),
		cmocka_unit_test(threads_pin_while_pages_are_cleaned_and_dropped),
	};

	return cmocka_run_group_tests_name("client", tests, vfs_setup, vfs_teardown);
}
