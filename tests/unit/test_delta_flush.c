/* SPDX-License-Identifier: MIT */
/* Flushes and checkpoints of a delta, of several threads at once: shared ones, failed ones. */
#include "delta_support.h"

#include <stdatomic.h>

struct flusher {
	struct delta *d;
	uint64_t ino;
	atomic_uint *committed;
	int result;
};

static void *flusher_main(void *arg)
{
	struct flusher *f = arg;

	must(frame_of(f->d, f->ino, 100) == 0);
	atomic_fetch_add(f->committed, 1);
	f->result = delta_flush(f->d);
	return NULL;
}

static void who_waits_shares_a_flush(void **state)
{
	enum { CROWD = 12 };

	for (unsigned fail = 0; fail < 2; fail++) {
		struct delta_options o = plain_options();
		struct flusher f[CROWD + 1];
		pthread_t threads[CROWD + 1];
		atomic_uint committed = 0;
		uint64_t before;
		struct memstore m;
		struct delta *d;

		memstore_init(&m, 0);
		d = create_delta(&m, &o);
		before = memstore_count(&m, MEM_FLUSH);
		memstore_hold(&m, true);
		for (unsigned i = 0; i <= CROWD; i++) {
			f[i] = (struct flusher){d, 900 + i, &committed, 1};
			must(thread_start(&threads[i], flusher_main, &f[i]) == 0);
			/* The first is in its flush when the others come. */
			if (i == 0)
				memstore_wait_flushes(&m, 1);
		}
		while (atomic_load(&committed) <= CROWD)
			sched_yield();
		if (fail)
			memstore_fail(&m, MEM_FLUSH, 1, -EIO, false);
		memstore_hold(&m, false);
		for (unsigned i = 0; i <= CROWD; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(f[i].result, fail ? -EIO : 0);
		}
		assert_int_equal(memstore_count(&m, MEM_FLUSH) - before, fail ? 1 : 2);
		assert_int_equal(delta_failed(d), fail ? -EIO : 0);
		if (fail) {
			assert_int_equal(delta_begin(d, 0), -EIO);
			assert_int_equal(delta_flush(d), -EIO);
			assert_int_equal(delta_checkpoint(d), -EIO);
			assert_int_equal(delta_reserve(d, 1), -EIO);
		}
		/* Its process has written them all the same. */
		d = reopen_delta(d, &m, &o);
		for (unsigned i = 0; i <= CROWD; i++) {
			const void *value;
			size_t len;

			delta_lock(d);
			assert_int_equal(tree_get(d->tree, KEY(900 + i, PINFS_DELTA_XVALUE, 0), &value, &len), 0);
			delta_unlock(d);
		}
		delta_close(d);
		memstore_destroy(&m);
	}
}

static void *checkpoint_main(void *arg)
{
	struct flusher *f = arg;

	atomic_fetch_add(f->committed, 1);
	f->result = delta_checkpoint(f->d);
	return NULL;
}

/* The kernel tells one of them only. */
static void a_failed_flush_is_the_failure_of_a_checkpoint_beside_it(void **state)
{
	for (unsigned i = 0; i < 20; i++) {
		struct delta_options o = plain_options();
		struct flusher f, c;
		pthread_t a, b;
		atomic_uint ready = 0;
		struct memstore m;
		struct delta *d;

		memstore_init(&m, 0);
		d = create_delta(&m, &o);
		f = (struct flusher){d, 900, &ready, 1};
		c = (struct flusher){d, 0, &ready, 1};
		memstore_hold(&m, true);
		must(thread_start(&a, flusher_main, &f) == 0);
		memstore_wait_flushes(&m, 1);
		must(thread_start(&b, checkpoint_main, &c) == 0);
		while (atomic_load(&ready) < 2)
			sched_yield();
		for (unsigned n = 0; n < 1000 * (i % 4); n++)
			sched_yield();
		memstore_fail(&m, MEM_FLUSH, 1, -EIO, false);
		memstore_hold(&m, false);
		pthread_join(a, NULL);
		pthread_join(b, NULL);
		assert_int_equal(f.result, -EIO);
		assert_int_equal(c.result, -EIO);
		delta_close(d);
		memstore_destroy(&m);
	}
}

struct worker {
	struct delta *d;
	unsigned self, done;
	atomic_uint *stop;
};

/* Counts up, each number one transaction: in an item, and in the pages that it holds. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t ino = 1000 + w->self;

	while (!*w->stop) {
		struct delta_inode inode;

		must(delta_begin(w->d, 0) == 0);
		must(delta_inode_get(w->d, ino, &inode) == 0);
		inode.size = ++w->done;
		must(delta_inode_put(w->d, &inode) == 0);
		if (w->done % 5 == 0) {
			delta_abort(w->d);
			w->done--;
			must(frame_of(w->d, ino + 100, 500 + w->done % 8000) == 0);
			must(write_logged_page(w->d, ino, w->done % 7, (uint8_t)w->done) == 0);
			must(page_is(w->d, ino, w->done % 7, (uint8_t)w->done) == 0);
			must(delta_begin(w->d, 0) == 0);
			must(delta_inode_get(w->d, ino, &inode) == 0);
			inode.size = ++w->done;
			must(delta_inode_put(w->d, &inode) == 0);
		}
		must(delta_commit(w->d) == 0);
		if (w->done % 31 == 0)
			must(delta_flush(w->d) == 0);
	}
	return NULL;
}

static void *checkpointer_main(void *arg)
{
	struct worker *w = arg;

	while (!*w->stop) {
		must(delta_checkpoint(w->d) == 0);
		w->done++;
	}
	return NULL;
}

static void checkpoints_and_transactions_of_several_threads(void **state)
{
	struct delta_options o = plain_options();
	atomic_uint stop = 0;
	struct worker w[4];
	pthread_t t[4];
	struct memstore m;
	struct delta *d;

	o.no_thread = false;
	o.commit_ms = 5;
	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){d, i, 0, &stop};
		make_inode(d, 1000 + i);
		must(thread_start(&t[i], i == 3 ? checkpointer_main : worker_main, &w[i]) == 0);
	}
	for (;;) {
		struct delta_info info;

		delta_get_info(d, &info);
		if (info.frames > 15000 && info.checkpoints > 30)
			break;
		sched_yield();
	}
	stop = 1;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	d = reopen_delta(d, &m, &o);
	for (unsigned i = 0; i < 3; i++) {
		struct delta_inode inode;

		delta_lock(d);
		must(delta_inode_get(d, 1000 + i, &inode) == 0);
		delta_unlock(d);
		assert_int_equal(inode.size >= w[i].done, 1);
	}
	delta_account(d);
	delta_close(d);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_shares_a_flush),
		cmocka_unit_test(a_failed_flush_is_the_failure_of_a_checkpoint_beside_it),
		cmocka_unit_test(checkpoints_and_transactions_of_several_threads),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_flush", tests, NULL, NULL);
}
