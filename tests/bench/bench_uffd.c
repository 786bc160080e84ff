/* SPDX-License-Identifier: MIT */
/*
 * What it costs to map a file's pages through userfaultfd, beside what the kernel does by itself with a memfd, in the same run:
 * loads and stores of what is mapped, first touches, first stores, pins, write protection.
 *
 * usage: bench_uffd [ROUNDS]      medians of so many rounds (default 5)
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sync.h"
#include "cache/cache.h"
#include "mm/uffd.h"

#define PAGE 4096u
#define PAGES 16384u /* 64 MiB */
#define PROTECTED 4096u
#define PINS 1000000u
#define ROUNDS_MAX 99u

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_uffd: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- a file that costs nothing to read or write ---- */

static void owner_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	for (unsigned i = 0; i < count; i++)
		memset(fills[i].data, (int)(first + i), PAGE);
}

static int owner_mkwrite(void *owner, uint64_t page, unsigned count)
{
	return 0;
}

static int owner_writeback(void *owner, const struct cache_write *w)
{
	return 0;
}

static const struct cache_ops ops = {.read = owner_read, .mkwrite = owner_mkwrite, .writeback = owner_writeback};

struct file {
	struct cache *cache;
	struct cache_mapping *file;
	struct mem_region memory;
	struct uffd_mmu *mmu;
	struct mm *mm;
	uint8_t *map;
	struct pinfs_page *table;
	int stop;
	pthread_t server;
};

static void clear(void *context, uint64_t page, unsigned count)
{
	struct file *f = context;

	mem_region_return(&f->memory, page * PAGE, (size_t)count * PAGE);
}

static void *serve(void *arg)
{
	struct file *f = arg;
	struct pollfd p[2] = {{.fd = uffd_fd(f->mmu), .events = POLLIN}, {.fd = f->stop, .events = POLLIN}};

	while (poll(p, 2, -1) >= 0 && !p[1].revents) {
		struct uffd_msg msg;

		while (read(p[0].fd, &msg, sizeof(msg)) == sizeof(msg))
			mm_fault(f->mm, msg.arg.pagefault.address & ~(uint64_t)(PAGE - 1),
				msg.arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP));
	}
	return NULL;
}

static void file_open(struct file *f)
{
	struct cache_options options = {.limit = 8 * (size_t)PAGES * PAGE, .dirty_background = 100, .dirty_expire_ms = 1u << 30};
	struct cache_outside outside = {.pages = PAGES, .clear = clear, .context = f, .untrusted = true};
	struct uffdio_api api = {.api = UFFD_API, .features = uffd_missing(0)};
	struct uffdio_register r;
	int fd;

	*f = (struct file){0};
	must(cache_new(&options, &f->cache) == 0 && cache_mapping_new(f->cache, &ops, f, PAGE, (uint64_t)PAGES * PAGE, 0, &f->file) == 0 &&
		mem_region_new("bench", (size_t)PAGES * PAGE, &f->memory) == 0, "no memory");
	outside.base = f->memory.base;
	must(cache_mapping_move(f->file, &outside) == 0, "can't move the file");
	f->map = mmap(NULL, f->memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory.fd, 0);
	f->table = mmap(NULL, PAGES * sizeof(*f->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (geteuid() ? UFFD_USER_MODE_ONLY : 0));
	must(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "no userfaultfd");
	r = (struct uffdio_register){.range = {.start = (uintptr_t)f->map, .len = f->memory.size},
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP};
	must(ioctl(fd, UFFDIO_REGISTER, &r) == 0, "can't register");
	must(uffd_mmu_new(fd, PAGES, &f->mmu) == 0 && mm_new(f->cache, &uffd_mmu_ops, f->mmu, &f->mm) == 0 &&
		uffd_range_add(f->mmu, (uintptr_t)f->map, PAGES, true, f->table) == 0 &&
		mm_map(f->mm, (uintptr_t)f->map, f->memory.size, VM_READ | VM_WRITE | VM_SHARED, f->file, 0, NULL) == 0, "can't map");
	f->stop = eventfd(0, EFD_CLOEXEC);
	must(thread_start(&f->server, serve, f) == 0, "no thread");
}

static void file_close(struct file *f)
{
	uint64_t one = 1;

	must(write(f->stop, &one, sizeof(one)) == sizeof(one), "can't stop");
	pthread_join(f->server, NULL);
	mm_unmap(f->mm, (uintptr_t)f->map, f->memory.size);
	uffd_range_remove(f->mmu, f->cache, (uintptr_t)f->map);
	mm_free(f->mm);
	uffd_mmu_free(f->mmu);
	close(f->stop);
	munmap(f->map, f->memory.size);
	munmap(f->table, PAGES * sizeof(*f->table));
	cache_mapping_free(f->file);
	mem_region_free(&f->memory);
	cache_free(f->cache);
}

/* ---- rows ---- */

enum row { LOADS, STORES, FIRST_LOADS, FIRST_STORES, POPULATE, PIN, MKCLEAN, ROWS };
static const struct {
	const char *name, *unit;
	bool peer;
} rows[ROWS] = {
	[LOADS] = {"loads of what is mapped", "ns a page", true},
	[STORES] = {"stores into what is mapped", "ns a page", true},
	[FIRST_LOADS] = {"first touches, one after another", "us a page", true},
	[FIRST_STORES] = {"first stores, far apart", "us a page", true},
	[POPULATE] = {"mkwrite of ranges, by the daemon", "us a page", false},
	[PIN] = {"fast pin and unpin", "ns", false},
	[MKCLEAN] = {"write protection of 4,096 pages", "ms", false},
};
static double seen[ROWS][2][ROUNDS_MAX];

static uint64_t sum_pages(const volatile uint8_t *map)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < (size_t)PAGES * PAGE; i += 64)
		sum += *(const volatile uint64_t *)(map + i);
	return sum;
}

static void fill_pages(volatile uint8_t *map)
{
	for (size_t i = 0; i < (size_t)PAGES * PAGE; i += 64)
		*(volatile uint64_t *)(map + i) = i;
}

/* All pages, each once, neighbours far apart. */
static void touch_pages(volatile uint8_t *map, bool write, bool apart)
{
	for (size_t i = 0; i < PAGES; i++) {
		size_t page = apart ? i * 4099 % PAGES : i;

		if (write)
			map[page * PAGE] = 1;
		else
			(void)map[page * PAGE];
	}
}

static double since(uint64_t start, double per)
{
	return (double)(now_ns() - start) / per;
}

static void hot(volatile uint8_t *map, unsigned which, unsigned round)
{
	uint64_t start = now_ns();

	sum_pages(map);
	seen[LOADS][which][round] = since(start, PAGES);
	start = now_ns();
	fill_pages(map);
	seen[STORES][which][round] = since(start, PAGES);
}

static void peer(unsigned round)
{
	struct mem_region m;
	uint64_t start;
	uint8_t *map;

	must(mem_region_new("peer", (size_t)PAGES * PAGE, &m) == 0, "no memory");
	/* The pages are there, as the daemon's are. */
	for (size_t i = 0; i < PAGES; i++)
		memset(m.base + i * PAGE, (int)i, PAGE);
	map = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	start = now_ns();
	touch_pages(map, false, false);
	seen[FIRST_LOADS][1][round] = since(start, PAGES * 1000.0);
	munmap(map, m.size);
	map = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_SHARED, m.fd, 0);
	madvise(map, m.size, MADV_RANDOM);
	start = now_ns();
	touch_pages(map, true, true);
	seen[FIRST_STORES][1][round] = since(start, PAGES * 1000.0);
	hot(map, 1, round);
	munmap(map, m.size);
	mem_region_free(&m);
}

static void fast_pins(struct file *f, unsigned round)
{
	uint32_t need = PINFS_PAGE_PRESENT | PINFS_PAGE_WRITE;
	uint64_t start = now_ns();

	for (unsigned i = 0; i < PINS; i++) {
		struct pinfs_page *p = &f->table[i * 7 % PAGES];

		a32_fetch_add((struct a32 *)&p->pins, PINFS_PAGE_WRITER);
		sync_mb();
		must((a32_read_acquire((struct a32 *)&p->state) & need) == need, "a page is not mapped");
		a32_fetch_add((struct a32 *)&p->pins, 0 - PINFS_PAGE_WRITER);
		sync_mb();
		must(!(a32_read_acquire((struct a32 *)&p->state) & PINFS_PAGE_HELD), "a page is held");
	}
	seen[PIN][0][round] = since(start, PINS);
}

static void ours(unsigned round)
{
	struct file f;
	uint64_t start;

	file_open(&f);
	/* They are in the cache, and mapped nowhere. */
	for (unsigned p = 0; p < PAGES; p++) {
		struct cache_ref ref;

		must(cache_get(f.file, p, &ref) == 0, "can't read");
		cache_put(f.file, &ref, CACHE_KEEP);
	}
	start = now_ns();
	touch_pages(f.map, false, false);
	seen[FIRST_LOADS][0][round] = since(start, PAGES * 1000.0);
	start = now_ns();
	touch_pages(f.map, true, true);
	seen[FIRST_STORES][0][round] = since(start, PAGES * 1000.0);
	hot(f.map, 0, round);
	fast_pins(&f, round);
	must(cache_sync(f.file, PROTECTED, UINT64_MAX - PROTECTED, NULL) == 0, "can't write");
	start = now_ns();
	must(cache_sync(f.file, 0, PROTECTED, NULL) == 0, "can't write");
	seen[MKCLEAN][0][round] = since(start, 1e6);
	start = now_ns();
	for (unsigned p = 0; p < PAGES; p++)
		must(mm_fault(f.mm, (uintptr_t)f.map + (uint64_t)p * PAGE, true) == FAULT_NOPAGE, "can't be mapped");
	seen[POPULATE][0][round] = since(start, PAGES * 1000.0);
	file_close(&f);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), compare);
	return values[n / 2];
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;

	must(rounds && rounds <= ROUNDS_MAX, "1 to 99 rounds");
	for (unsigned i = 0; i < rounds; i++) {
		peer(i);
		ours(i);
	}
	for (unsigned r = 0; r < ROWS; r++) {
		double mine = median(seen[r][0], rounds), its = rows[r].peer ? median(seen[r][1], rounds) : 0;

		printf("%-36s %9.3f %s", rows[r].name, mine, rows[r].unit);
		if (rows[r].peer)
			printf("; memfd %.3f, ratio %.2f", its, its / mine);
		printf("\n");
	}
	return 0;
}
