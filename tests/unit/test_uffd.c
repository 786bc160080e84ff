/* SPDX-License-Identifier: MIT */
/*
 * mm's back end for real processes: this one maps a file's memfd as a client does, and threads answer its page faults. What the page
 * tables of src/mm say is what loads, stores and the kernel's own accesses meet.
 */
#include "support.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <signal.h>
#include <unistd.h>

#include "base/mem.h"
#include "disk.h"
#include "mm/uffd.h"

#define PAGE DISK_PAGE
#define PAGES DISK_PAGES
#define SERVERS 2u

struct fixture {
	struct disk *disk;
	struct cache *cache;
	struct cache_mapping *file;
	struct mem_region memory;
	struct uffd_mmu *mmu;
	struct mm *mm;
	int stop;
	pthread_t servers[SERVERS];
	/* The client's. */
	int fd;
	uint8_t *map;
	struct pinfs_page *table;
};

static void clear(void *context, uint64_t page, unsigned count)
{
	struct fixture *f = context;

	mem_region_return(&f->memory, page * PAGE, (size_t)count * PAGE);
}

/* What the daemon does with a page fault. */
static void *serve(void *arg)
{
	struct fixture *f = arg;
	struct pollfd p[2] = {{.fd = uffd_fd(f->mmu), .events = POLLIN}, {.fd = f->stop, .events = POLLIN}};

	while (poll(p, 2, -1) >= 0 && !p[1].revents) {
		struct uffd_msg msg;
		uint64_t addr;
		bool write;

		if (read(p[0].fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		if (msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		addr = msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1);
		write = msg.arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
		/* What is mapped, and can't be stored to, leaves first. */
		if (mm_fault(f->mm, addr, write) != FAULT_NOPAGE)
			while (uffd_poison(f->mmu, addr) == -EBUSY)
				cache_invalidate(f->file, (addr - (uintptr_t)f->map) / PAGE, 1);
	}
	return NULL;
}

static int uffd_open(unsigned flags)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd, probe = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	if (probe < 0)
		return -errno;
	/* Without features it tells which there are, and is used up. */
	assert_int_equal(ioctl(probe, UFFDIO_API, &api), 0);
	close(probe);
	if (uffd_missing(api.features)) {
		print_message("this kernel has no %s\n", uffd_feature_name(uffd_missing(api.features)));
		return -EOPNOTSUPP;
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
	/* No others: with UFFD_FEATURE_WP_ASYNC stores are announced to nobody. */
	api = (struct uffdio_api){.api = UFFD_API, .features = uffd_missing(0)};
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	return fd;
}

static int client_register(int fd, void *at, size_t len, bool writable)
{
	struct uffdio_register r = {
		.range = {.start = (uintptr_t)at, .len = len},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | (writable ? UFFDIO_REGISTER_MODE_WP : 0),
	};

	return ioctl(fd, UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

/* A second descriptor is the client's. */
static bool begin_with(struct fixture *f, unsigned frames, unsigned flags, uint64_t holds)
{
	struct cache_options options = {.limit = (size_t)frames * PAGE, .dirty_background = 100};
	struct cache_outside outside = {.pages = PAGES, .clear = clear, .context = f, .untrusted = true};
	int fd = uffd_open(flags);

	*f = (struct fixture){.disk = disk_new(1)};
	if (fd < 0) {
		print_message("userfaultfd: %s\n", strerror(-fd));
		free(f->disk);
		return false;
	}
	assert_int_equal(cache_new(&options, &f->cache), 0);
	assert_int_equal(cache_mapping_new(f->cache, &disk_ops, f->disk, PAGE, PAGES * PAGE, 0, &f->file), 0);
	assert_int_equal(mem_region_new("test", 2 * PAGES * PAGE, &f->memory), 0);
	outside.base = f->memory.base;
	outside.pages = 2 * PAGES;
	assert_int_equal(cache_mapping_move(f->file, &outside), 0);
	f->map = mmap(NULL, f->memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory.fd, 0);
	assert_true(f->map != MAP_FAILED);
	f->table = mmap(NULL, 2 * PAGES * sizeof(*f->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(f->table != MAP_FAILED);
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(client_register(f->fd, f->map, f->memory.size, true), 0);
	assert_int_equal(uffd_mmu_new(fd, holds, &f->mmu), 0);
	assert_int_equal(mm_new(f->cache, &uffd_mmu_ops, f->mmu, &f->mm), 0);
	assert_int_equal(uffd_range_add(f->mmu, (uintptr_t)f->map, 2 * PAGES, true, f->table), 0);
	assert_int_equal(mm_map(f->mm, (uintptr_t)f->map, f->memory.size, VM_READ | VM_WRITE | VM_SHARED, f->file, 0, NULL), 0);
	f->stop = eventfd(0, EFD_CLOEXEC);
	for (unsigned i = 0; i < SERVERS; i++)
		assert_int_equal(thread_start(&f->servers[i], serve, f), 0);
	return true;
}

static bool begin(struct fixture *f)
{
	return begin_with(f, 48, geteuid() ? UFFD_USER_MODE_ONLY : 0, PAGES);
}

static struct cache_stats stats(struct fixture *f)
{
	struct cache_stats s;

	cache_get_stats(f->cache, &s);
	return s;
}

static void end(struct fixture *f)
{
	uint64_t one = 1;

	assert_int_equal(write(f->stop, &one, sizeof(one)), sizeof(one));
	for (unsigned i = 0; i < SERVERS; i++)
		pthread_join(f->servers[i], NULL);
	assert_int_equal(mm_unmap(f->mm, (uintptr_t)f->map, f->memory.size), 0);
	uffd_range_remove(f->mmu, f->cache, (uintptr_t)f->map);
	mm_free(f->mm);
	uffd_mmu_free(f->mmu);
	close(f->fd);
	close(f->stop);
	cache_mapping_free(f->file);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(a32_read(&f->disk->reserved[p]), 0);
	assert_int_equal(stats(f).used, 0);
	assert_int_equal(stats(f).dirty, 0);
	cache_free(f->cache);
	munmap(f->map, f->memory.size);
	munmap(f->table, 2 * PAGES * sizeof(*f->table));
	mem_region_free(&f->memory);
	free(f->disk);
	assert_int_equal(sync_violations(), 0);
}

static void sync_file(struct fixture *f)
{
	assert_int_equal(cache_sync(f->file, 0, UINT64_MAX, NULL), 0);
}

/* ---- what the library will do ---- */

static uint32_t state_of(const struct fixture *f, unsigned page)
{
	return __atomic_load_n(&f->table[page].state, __ATOMIC_ACQUIRE);
}

/* The process goes on as soon as its page is there, perhaps before the table says so. */
static void until_state(const struct fixture *f, unsigned page, uint32_t want)
{
	for (unsigned i = 0; state_of(f, page) != want; i++) {
		must(i < 10000000);
		sched_yield();
	}
}

/* True: without asking. */
static bool pin(struct fixture *f, unsigned page, bool write)
{
	uint32_t need = PINFS_PAGE_PRESENT | (write ? PINFS_PAGE_WRITE : 0);

	__atomic_fetch_add(&f->table[page].pins, write ? PINFS_PAGE_WRITER : PINFS_PAGE_READER, __ATOMIC_SEQ_CST);
	sync_mb();
	if ((state_of(f, page) & need) == need)
		return true;
	/* The daemon's part: it is there, and the count is seen by whoever takes it away again. */
	must(uffd_pin(f->mm, (uintptr_t)f->map + (uint64_t)page * PAGE, write ? PIN_FOR_WRITE : 0) == 0);
	return false;
}

static void unpin(struct fixture *f, unsigned page, bool write)
{
	uint32_t left = __atomic_sub_fetch(&f->table[page].pins, write ? PINFS_PAGE_WRITER : PINFS_PAGE_READER, __ATOMIC_SEQ_CST);

	sync_mb();
	if (!left && state_of(f, page) & PINFS_PAGE_HELD)
		uffd_unhold(f->mmu, f->cache, (uintptr_t)f->map + (uint64_t)page * PAGE, 1);
}

static volatile uint8_t *at(struct fixture *f, unsigned page)
{
	return f->map + (size_t)page * PAGE;
}

/* Pages of the memfd that take memory. */
static unsigned there(struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->memory.fd, &st), 0);
	return (unsigned)(st.st_blocks / (PAGE / 512));
}

/* What can go is gone; who has answered a fault just now may have a page still. */
static void reclaim_until(struct fixture *f, unsigned left)
{
	for (unsigned i = 0; there(f) > left; i++) {
		must(i < 1000000);
		cache_reclaim(f->cache, PAGES * PAGE);
		sched_yield();
	}
	assert_int_equal(there(f), left);
}

/* ---- single behaviours ---- */

static void a_load_is_a_fault_and_a_store_is_announced(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	assert_int_equal(*at(&f, 3), 4);
	until_state(&f, 3, PINFS_PAGE_PRESENT);
	assert_int_equal(stats(&f).count.pgmkwrite, 0);
	*at(&f, 3) = 77;
	assert_int_equal(stats(&f).count.pgmkwrite, 1);
	until_state(&f, 3, PINFS_PAGE_PRESENT | PINFS_PAGE_WRITE);
	*at(&f, 3) = 78;
	/* The first touch is a store. */
	at(&f, 5)[100] = 55;
	assert_int_equal(at(&f, 5)[101], 6);
	assert_int_equal(stats(&f).count.pgmkwrite, 2);
	sync_file(&f);
	assert_int_equal(f.disk->bytes[3][0], 78);
	assert_int_equal(f.disk->bytes[5][100], 55);
	assert_int_equal(stats(&f).dirty, 0);
	/* Announced once more, since it was cleaned; a load is not. */
	until_state(&f, 3, PINFS_PAGE_PRESENT);
	assert_int_equal(*at(&f, 3), 78);
	*at(&f, 3) = 79;
	assert_int_equal(stats(&f).count.pgmkwrite, 3);
	sync_file(&f);
	assert_int_equal(f.disk->bytes[3][0], 79);
	/* Copies were written: the process is not trusted. */
	assert_int_equal(stats(&f).count.pgbounce, 3);
	end(&f);
}

static void what_the_daemon_writes_is_seen(void **state)
{
	struct fixture f;
	uint8_t buf[100];

	if (!begin(&f))
		skip();
	assert_int_equal(*at(&f, 7), 8);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(cache_write(f.file, 7 * PAGE, buf, sizeof(buf), NULL), 0);
	assert_int_equal(at(&f, 7)[99], 'x');
	assert_int_equal(at(&f, 7)[100], 8);
	cache_punch(f.file, 7, 1);
	memset(f.disk->bytes[7], 0, PAGE);
	assert_int_equal(*at(&f, 7), 0);
	end(&f);
}

static void clean_pages_go_and_come_back(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	for (unsigned p = 0; p < 20; p++)
		assert_int_equal(*at(&f, p), p + 1);
	*at(&f, 4) = 44;
	reclaim_until(&f, 1);
	until_state(&f, 3, 0);
	assert_int_equal(*at(&f, 4), 44);
	for (unsigned p = 0; p < 20; p++)
		assert_int_equal(*at(&f, p), p == 4 ? 44 : p + 1);
	/* More than the cache has room for. */
	for (unsigned round = 0; round < 3; round++)
		for (unsigned p = 0; p < PAGES; p++)
			assert_int_equal(at(&f, p)[9], p + 1);
	assert_true(there(&f) <= 48);
	end(&f);
}

static sigjmp_buf fault_jump;

static void on_fault(int sig)
{
	siglongjmp(fault_jump, sig);
}

/* The signal that a load, or a store, ends in; 0. */
static int touch(volatile uint8_t *p, bool write)
{
	struct sigaction sa = {.sa_handler = on_fault}, old;
	int sig;

	sigemptyset(&sa.sa_mask);
	sigaction(SIGBUS, &sa, &old);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig) {
		if (write)
			*p = 1;
		else
			(void)*p;
	}
	sigaction(SIGBUS, &old, NULL);
	return sig;
}

static void no_space_is_an_error_of_the_store(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	assert_int_equal(*at(&f, 3), 4);
	a32_set(&f.disk->no_space, 1);
	assert_int_equal(touch(at(&f, 3), true), SIGBUS);
	assert_int_equal(touch(at(&f, 4), true), SIGBUS);
	a32_set(&f.disk->no_space, 0);
	assert_int_equal(f.disk->bytes[3][0], 4);
	assert_int_equal(stats(&f).dirty, 0);
	end(&f);
}

static void behind_the_end_is_sigbus(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	assert_int_equal(touch(at(&f, PAGES), false), SIGBUS);
	assert_int_equal(touch(at(&f, PAGES), false), SIGBUS);
	assert_int_equal(touch(at(&f, PAGES + 1), true), SIGBUS);
	/* Pages that leave. */
	assert_int_equal(touch(at(&f, 10), false), 0);
	assert_int_equal(touch(at(&f, 11), true), 0);
	cache_truncate(f.file, 10 * PAGE + 5);
	assert_int_equal(at(&f, 10)[4], 11);
	assert_int_equal(at(&f, 10)[5], 0);
	assert_int_equal(touch(at(&f, 11), false), SIGBUS);
	assert_int_equal(touch(at(&f, 12), true), SIGBUS);
	/* Whoever has it installed gets them back. */
	memset(f.disk->bytes[11], 0, PAGE);
	cache_truncate(f.file, 12 * PAGE);
	assert_int_equal(mm_fault(f.mm, (uintptr_t)at(&f, 11), false), FAULT_NOPAGE);
	assert_int_equal(touch(at(&f, 11), true), 0);
	a32_set(&f.disk->fail_reads, 1);
	assert_int_equal(touch(at(&f, 2), false), SIGBUS);
	a32_set(&f.disk->fail_reads, 0);
	end(&f);
}

/* ---- pins ---- */

static void a_page_pinned_for_writing_stays_dirty_and_writable(void **state)
{
	struct fixture f;
	uint64_t mkwrites;

	if (!begin(&f))
		skip();
	assert_false(pin(&f, 6, true));
	until_state(&f, 6, PINFS_PAGE_PRESENT | PINFS_PAGE_WRITE);
	/* Who has it once has it again for nothing. */
	assert_true(pin(&f, 6, true));
	unpin(&f, 6, true);
	*at(&f, 6) = 60;
	sync_file(&f);
	assert_int_equal(f.disk->bytes[6][0], 60);
	assert_int_equal(stats(&f).dirty, PAGE);
	until_state(&f, 6, PINFS_PAGE_PRESENT | PINFS_PAGE_WRITE | PINFS_PAGE_HELD);
	mkwrites = stats(&f).count.pgfault;
	*at(&f, 6) = 61;
	assert_int_equal(stats(&f).count.pgfault, mkwrites);
	sync_file(&f);
	assert_int_equal(f.disk->bytes[6][0], 61);
	unpin(&f, 6, true);
	assert_int_equal(stats(&f).dirty, PAGE);
	*at(&f, 6) = 62;
	sync_file(&f);
	assert_int_equal(f.disk->bytes[6][0], 62);
	assert_int_equal(stats(&f).dirty, 0);
	until_state(&f, 6, PINFS_PAGE_PRESENT);
	/* Now it is a fault again. */
	mkwrites = stats(&f).count.pgmkwrite;
	*at(&f, 6) = 63;
	assert_int_equal(stats(&f).count.pgmkwrite, mkwrites + 1);
	end(&f);
}

static void a_pinned_page_is_not_reclaimed(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	pin(&f, 2, false);
	assert_int_equal(*at(&f, 3), 4);
	reclaim_until(&f, 1);
	until_state(&f, 2, PINFS_PAGE_HELD);
	/* A second pin has to ask, and gets the same page. */
	assert_false(pin(&f, 2, false));
	until_state(&f, 2, PINFS_PAGE_PRESENT | PINFS_PAGE_HELD);
	unpin(&f, 2, false);
	cache_reclaim(f.cache, PAGES * PAGE);
	assert_int_equal(there(&f), 1);
	unpin(&f, 2, false);
	reclaim_until(&f, 0);
	until_state(&f, 2, 0);
	assert_int_equal(*at(&f, 2), 3);
	end(&f);
}

/* What the kernel has pinned keeps its memory, and is nobody's any more (R5). */
static void a_pinned_page_outlives_its_place_in_the_file(void **state)
{
	struct iovec iov;
	struct fixture f;
	uint8_t buf[PAGE];
	int pipes[2];

	if (!begin(&f))
		skip();
	assert_int_equal(pipe(pipes), 0);
	pin(&f, 8, true);
	*at(&f, 8) = 88;
	/* The pipe has the page itself. */
	iov = (struct iovec){(void *)at(&f, 8), PAGE};
	assert_int_equal(vmsplice(pipes[1], &iov, 1, 0), PAGE);
	cache_truncate(f.file, 8 * PAGE);
	memset(f.disk->bytes[8], 0, PAGE);
	cache_truncate(f.file, PAGES * PAGE);
	assert_int_equal(stats(&f).count.pgdetach_pinned, 1);
	assert_int_equal(state_of(&f, 8) & PINFS_PAGE_PRESENT, 0);
	assert_int_equal(mm_fault(f.mm, (uintptr_t)at(&f, 8), true), FAULT_NOPAGE);
	assert_int_equal(*at(&f, 8), 0);
	*at(&f, 8) = 89;
	/* The new page's pin is counted on, too, since nobody knows which one it is. */
	sync_file(&f);
	assert_int_equal(f.disk->bytes[8][0], 89);
	assert_int_equal(read(pipes[0], buf, PAGE), PAGE);
	assert_int_equal(buf[0], 88);
	assert_int_equal(stats(&f).used, 2 * PAGE);
	unpin(&f, 8, true);
	assert_int_equal(stats(&f).used, PAGE);
	sync_file(&f);
	assert_int_equal(stats(&f).dirty, 0);
	close(pipes[0]);
	close(pipes[1]);
	end(&f);
}

/* Where the kernel's own accesses can't be answered, a pinned page needs no answer, whatever is done to it meanwhile. */
static void with_user_mode_only_the_kernel_gets_at_pinned_pages(void **state)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct fixture f;

	if (!begin_with(&f, 48, UFFD_USER_MODE_ONLY, PAGES))
		skip();
	assert_int_equal(*at(&f, 1), 2);
	errno = 0;
	assert_int_equal(read(zero, (void *)at(&f, 1), PAGE), -1);
	assert_int_equal(errno, EFAULT);
	pin(&f, 1, true);
	assert_int_equal(read(zero, (void *)at(&f, 1), PAGE), PAGE);
	for (unsigned i = 0; i < 3; i++) {
		*at(&f, 1) = 9;
		sync_file(&f);
		cache_reclaim(f.cache, PAGES * PAGE);
		assert_int_equal(read(zero, (void *)at(&f, 1), PAGE), PAGE);
		assert_int_equal(*at(&f, 1), 0);
	}
	sync_file(&f);
	assert_int_equal(f.disk->bytes[1][0], 0);
	unpin(&f, 1, true);
	sync_file(&f);
	errno = 0;
	assert_int_equal(read(zero, (void *)at(&f, 1), PAGE), -1);
	assert_int_equal(errno, EFAULT);
	close(zero);
	end(&f);
}

/* ---- processes that don't keep to it ---- */

static void a_limit_on_what_pins_hold(void **state)
{
	struct fixture f;

	if (!begin_with(&f, 48, geteuid() ? UFFD_USER_MODE_ONLY : 0, 4))
		skip();
	for (unsigned p = 0; p < 5; p++)
		pin(&f, p, true);
	assert_int_equal(uffd_lost(f.mmu), 0);
	sync_file(&f);
	assert_int_equal(uffd_lost(f.mmu), -EDQUOT);
	for (unsigned p = 0; p < 5; p++)
		unpin(&f, p, true);
	end(&f);
}

static void scribble(struct fixture *f, unsigned page, uint32_t with)
{
	__atomic_store_n(&f->table[page].state, with, __ATOMIC_RELAXED);
	__atomic_store_n(&f->table[page].pins, with, __ATOMIC_RELAXED);
}

static void scribbling_in_the_table_harms_nobody_else(void **state)
{
	struct fixture f;

	if (!begin(&f))
		skip();
	for (unsigned p = 0; p < 20; p++) {
		*at(&f, p) = 1;
		scribble(&f, p, UINT32_MAX);
	}
	for (unsigned p = 20; p < PAGES; p++)
		scribble(&f, p, UINT32_MAX);
	sync_file(&f);
	cache_reclaim(f.cache, PAGES * PAGE);
	assert_int_equal(stats(&f).dirty, 20 * PAGE);
	for (unsigned p = 0; p < PAGES; p++)
		scribble(&f, p, 0);
	uffd_unhold(f.mmu, f.cache, (uintptr_t)at(&f, 0), 2 * PAGES + 7);
	sync_file(&f);
	reclaim_until(&f, 0);
	assert_int_equal(uffd_lost(f.mmu), 0);
	end(&f);
}

static void what_is_punched_or_unregistered_is_the_process_s_loss(void **state)
{
	struct uffdio_range range;
	struct fixture f;

	if (!begin(&f))
		skip();
	*at(&f, 3) = 33;
	*at(&f, 4) = 44;
	/* Its own bytes are gone; the daemon goes on. */
	assert_int_equal(fallocate(f.memory.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * PAGE, PAGE), 0);
	assert_int_equal(*at(&f, 3), 0);
	sync_file(&f);
	assert_int_equal(f.disk->bytes[3][0], 0);
	assert_int_equal(f.disk->bytes[4][0], 44);
	range = (struct uffdio_range){.start = (uintptr_t)f.map, .len = f.memory.size};
	*at(&f, 5) = 55;
	assert_int_equal(ioctl(f.fd, UFFDIO_UNREGISTER, &range), 0);
	*at(&f, 5) = 56;
	sync_file(&f);
	assert_in_range(f.disk->bytes[5][0], 55, 56);
	cache_reclaim(f.cache, PAGES * PAGE);
	assert_int_equal(uffd_lost(f.mmu), 0);
	end(&f);
}

static void what_is_no_userfaultfd_is_lost(void **state)
{
	struct uffd_mmu *mmu;
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(uffd_mmu_new(pipes[0], 1, &mmu), 0);
	uffd_wake(mmu, 4096);
	assert_int_equal(uffd_lost(mmu), -EPROTO);
	uffd_mmu_free(mmu);
	close(pipes[1]);
}

/* ---- all at once ---- */

#define WORKERS 3u

struct worker {
	struct fixture *f;
	struct a32 *stop;
	unsigned no, rounds;
	pthread_t thread;
};

/* Each has a byte range of its own in each page, and knows what must be there. DMA: the kernel writes to what is pinned. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct rng rng = {w->no + 77};
	uint8_t mine[PAGES], buf[64];
	int pipes[2];

	must(pipe(pipes) == 0);
	for (unsigned p = 0; p < PAGES; p++)
		mine[p] = (uint8_t)(p + 1);
	while (!a32_read(w->stop)) {
		unsigned p = (unsigned)rng_below(&rng, PAGES - 8);
		volatile uint8_t *bytes = at(w->f, p) + 64 * w->no;

		switch (rng_below(&rng, 4)) {
		case 0:
			mine[p] = (uint8_t)rng_next(&rng);
			for (unsigned i = 0; i < 64; i++)
				bytes[i] = mine[p];
			break;
		case 1:
			pin(w->f, p, true);
			mine[p] = (uint8_t)rng_next(&rng);
			memset(buf, mine[p], sizeof(buf));
			must(write(pipes[1], buf, sizeof(buf)) == sizeof(buf));
			must(read(pipes[0], (void *)bytes, sizeof(buf)) == sizeof(buf));
			unpin(w->f, p, true);
			break;
		case 2:
			pin(w->f, p, false);
			must(write(pipes[1], (void *)bytes, sizeof(buf)) == sizeof(buf));
			unpin(w->f, p, false);
			must(read(pipes[0], buf, sizeof(buf)) == sizeof(buf));
			for (unsigned i = 0; i < 64; i++)
				must(buf[i] == mine[p]);
			break;
		default:
			for (unsigned i = 0; i < 64; i++)
				must(bytes[i] == mine[p]);
		}
		w->rounds++;
	}
	for (unsigned p = 0; p < PAGES - 8; p++)
		for (unsigned i = 0; i < 64; i++)
			must(at(w->f, p)[64 * w->no + i] == mine[p]);
	close(pipes[0]);
	close(pipes[1]);
	return NULL;
}

static void everything_at_once(void **state)
{
	const char *rounds = getenv("PINFS_HAMMER_ROUNDS");
	uint64_t want = rounds ? (uint64_t)atoi(rounds) : 300;
	struct worker w[WORKERS];
	struct a32 stop = {0};
	struct fixture f;

	if (!begin_with(&f, 40, UFFD_USER_MODE_ONLY, PAGES))
		skip();
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){.f = &f, .stop = &stop, .no = i};
		assert_int_equal(thread_start(&w[i].thread, worker_main, &w[i]), 0);
	}
	while (stats(&f).count.pgsteal < want || stats(&f).count.pgdirty_pinned < want / 10 || stats(&f).count.pgpgout < want) {
		must(cache_sync(f.file, 0, UINT64_MAX, NULL) == 0);
		cache_reclaim(f.cache, 8 * PAGE);
		/* The last eight come and go. */
		cache_truncate(f.file, (PAGES - 8) * PAGE);
		for (unsigned p = PAGES - 8; p < PAGES; p++)
			memset(f.disk->bytes[p], 0, PAGE);
		cache_truncate(f.file, PAGES * PAGE);
		must(mm_fault(f.mm, (uintptr_t)at(&f, PAGES - 2), true) == FAULT_NOPAGE);
		must(at(&f, PAGES - 2)[5] == 0);
		at(&f, PAGES - 2)[5] = 1;
	}
	a32_set(&stop, 1);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(w[i].thread, NULL);
	sync_file(&f);
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned p = 0; p < PAGES - 8; p++)
			assert_memory_equal(f.disk->bytes[p] + 64 * i, (const void *)(at(&f, p) + 64 * i), 64);
	assert_int_equal(uffd_lost(f.mmu), 0);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_load_is_a_fault_and_a_store_is_announced),
		cmocka_unit_test(what_the_daemon_writes_is_seen),
		cmocka_unit_test(clean_pages_go_and_come_back),
		cmocka_unit_test(no_space_is_an_error_of_the_store),
		cmocka_unit_test(behind_the_end_is_sigbus),
		cmocka_unit_test(a_page_pinned_for_writing_stays_dirty_and_writable),
		cmocka_unit_test(a_pinned_page_is_not_reclaimed),
		cmocka_unit_test(a_pinned_page_outlives_its_place_in_the_file),
		cmocka_unit_test(with_user_mode_only_the_kernel_gets_at_pinned_pages),
		cmocka_unit_test(a_limit_on_what_pins_hold),
		cmocka_unit_test(scribbling_in_the_table_harms_nobody_else),
		cmocka_unit_test(what_is_punched_or_unregistered_is_the_process_s_loss),
		cmocka_unit_test(what_is_no_userfaultfd_is_lost),
		cmocka_unit_test(everything_at_once),
	};

	return cmocka_run_group_tests_name("uffd", tests, NULL, support_end);
}
