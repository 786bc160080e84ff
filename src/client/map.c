/* SPDX-License-Identifier: MIT */
/* Maps and their pins. */
#include "client/internal.h"

#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sync.h"
#include "pinfs/ioctl.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define PAGE ((size_t)4096)
#define COUNT_MOST 0xffffu

struct pinfs_map {
	struct connection *connection;
	uint64_t file, id;
	uint8_t *base; /* of the first page */
	size_t pages;
	size_t skip, length; /* what was asked for */
	bool writable;	     /* by this map */
	struct pinfs_page *table;
};

/* ---- mapping ---- */

/* The file's memfd, and whether it may be stored to. */
static int file_open(struct pinfs_map *m, const uint8_t token[PINFS_TOKEN_SIZE], int *ret_memfd, bool *ret_write, uint64_t *ret_room)
{
	struct pinfs_message msg = {.type = PINFS_OPEN};
	int r;

	memcpy(msg.token, token, sizeof(msg.token));
	r = connection_ask(m->connection, &msg, -1, ret_memfd);
	if (r < 0)
		return r;
	m->file = msg.id;
	*ret_write = msg.flags & PINFS_OPEN_WRITE;
	*ret_room = msg.count;
	return *ret_memfd < 0 ? -EPROTO : 0;
}

/* The addresses, and the userfaultfd on them. */
static int range_make(struct pinfs_map *m, int memfd, uint64_t first, int prot, bool write, const struct pinfs_map_options *o)
{
	struct uffdio_register r = {.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | (write ? UFFDIO_REGISTER_MODE_WP : 0)};
	void *at = o ? o->address : NULL;
	bool user_mode;
	uint8_t *base;

	/* Shared memory that can't be stored to can't be registered: a private map shows the same pages. */
	base = mmap(at, m->pages * PAGE, prot, (write ? MAP_SHARED : MAP_PRIVATE) | (at ? MAP_FIXED_NOREPLACE : 0), memfd, (off_t)(first * PAGE));
	if (base == MAP_FAILED)
		return -errno;
	m->base = base;
	if (at && base != at)
		return -EEXIST;
	/* A child that stored there would announce it to nobody. */
	if (madvise(base, m->pages * PAGE, MADV_DONTFORK) < 0)
		return -errno;
	r.range = (struct uffdio_range){.start = (uintptr_t)base, .len = m->pages * PAGE};
	return ioctl(connection_uffd(m->connection, &user_mode), UFFDIO_REGISTER, &r) < 0 ? -errno : 0;
}

static int table_get(struct pinfs_map *m, uint64_t first)
{
	struct pinfs_message msg = {.type = PINFS_MAP, .id = m->file, .page = first, .count = m->pages, .address = (uintptr_t)m->base};
	_cleanup_close_ int fd = -1;
	void *table;
	int r = connection_ask(m->connection, &msg, -1, &fd);

	if (r < 0)
		return r;
	m->id = msg.id;
	if (fd < 0)
		return -EPROTO;
	table = mmap(NULL, m->pages * sizeof(*m->table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED)
		return -errno;
	m->table = table;
	/* Its pins are the parent's. */
	return madvise(table, m->pages * sizeof(*m->table), MADV_DONTFORK) < 0 ? -errno : 0;
}

static int tell(struct pinfs_map *m, unsigned type, uint64_t id)
{
	struct pinfs_message msg = {.type = type, .id = id};

	return connection_ask(m->connection, &msg, -1, NULL);
}

/* Also of one that was made in part. A child has none of it but the memory for this. */
static void map_free(struct pinfs_map *m)
{
	if (connection_mine(m->connection)) {
		if (m->id)
			tell(m, PINFS_UNMAP, m->id);
		if (m->base)
			munmap(m->base, m->pages * PAGE);
		if (m->table)
			munmap(m->table, m->pages * sizeof(*m->table));
		if (m->file)
			tell(m, PINFS_CLOSE, m->file);
	}
	connection_put(m->connection);
	free(m);
}

int map_by_token(struct connection *c, const uint8_t token[PINFS_TOKEN_SIZE], uint64_t offset, size_t length, int prot,
	const struct pinfs_map_options *o, struct pinfs_map **ret)
{
	uint64_t first = offset / PAGE, room = 0;
	struct pinfs_map *m = calloc(1, sizeof(*m));
	_cleanup_close_ int memfd = -1;
	bool write = false;
	int r;

	if (!m) {
		connection_put(c);
		return -ENOMEM;
	}
	m->connection = c;
	m->skip = offset % PAGE;
	m->length = length;
	m->pages = DIV_ROUND_UP(m->skip + length, PAGE);
	m->writable = prot & PROT_WRITE;
	r = file_open(m, token, &memfd, &write, &room);
	if (r == 0 && m->writable && !write)
		r = -EACCES;
	if (r == 0 && (first >= room || m->pages > room - first))
		r = -EINVAL;
	if (r == 0)
		r = range_make(m, memfd, first, prot, write, o);
	if (r == 0)
		r = table_get(m, first);
	if (r < 0) {
		map_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

int pinfs_map(int fd, uint64_t offset, size_t length, int prot, const struct pinfs_map_options *o, struct pinfs_map **ret)
{
	struct pinfs_ioc_share share = {.size = sizeof(share)};
	struct connection *c;
	int r;

	if (!length || prot & ~(PROT_READ | PROT_WRITE) || !(prot & PROT_READ) || offset > INT64_MAX - PAGE || length > INT64_MAX - offset - PAGE ||
		(o && (o->size < sizeof(*o) || o->reserved || (uintptr_t)o->address % PAGE)))
		return -EINVAL;
	if (ioctl(fd, PINFS_IOC_SHARE, &share) < 0)
		return -errno;
	if (share.protocol != PINFS_PROTOCOL_VERSION)
		return -EPROTONOSUPPORT;
	share.socket[sizeof(share.socket) - 1] = 0;
	r = connection_get(share.socket, &c);
	return r < 0 ? r : map_by_token(c, share.token, offset, length, prot, o, ret);
}

void *pinfs_map_address(const struct pinfs_map *m)
{
	return m->base + m->skip;
}

int pinfs_needs_pins(const struct pinfs_map *m)
{
	bool user_mode;

	connection_uffd(m->connection, &user_mode);
	return user_mode;
}

/* ---- pins ---- */

static struct a32 *pins_of(const struct pinfs_map *m, size_t page)
{
	return (struct a32 *)&m->table[page].pins;
}

static uint32_t state_of(const struct pinfs_map *m, size_t page)
{
	return a32_read_acquire((const struct a32 *)&m->table[page].state);
}

int pinfs_unmap(struct pinfs_map *m)
{
	if (!m)
		return 0;
	for (size_t i = 0; connection_mine(m->connection) && i < m->pages; i++)
		if (a32_read(pins_of(m, i)))
			return -EBUSY;
	map_free(m);
	return 0;
}

/* The pages of a range of the map. */
static int range_of(const struct pinfs_map *m, size_t offset, size_t length, size_t *ret_first, size_t *ret_count)
{
	if (!length || offset > m->length || length > m->length - offset)
		return -EINVAL;
	if (!connection_mine(m->connection))
		return -EPIPE;
	*ret_first = (m->skip + offset) / PAGE;
	*ret_count = DIV_ROUND_UP(m->skip + offset + length, PAGE) - *ret_first;
	return 0;
}

static int unit_of(const struct pinfs_map *m, unsigned flags, uint32_t *ret)
{
	unsigned what = flags & (PINFS_READ | PINFS_WRITE);

	if (flags & ~(unsigned)(PINFS_READ | PINFS_WRITE | PINFS_NOWAIT) || (what != PINFS_READ && what != PINFS_WRITE))
		return -EINVAL;
	if (what == PINFS_WRITE && !m->writable)
		return -EACCES;
	*ret = what == PINFS_WRITE ? PINFS_PAGE_WRITER : PINFS_PAGE_READER;
	return 0;
}

/* Of what `unit` counts. */
static uint32_t counted(uint32_t pins, uint32_t unit)
{
	return unit == PINFS_PAGE_READER ? pins & PINFS_PAGE_READERS : pins >> 16;
}

/* True: it is counted, and found as it has to be: nothing else is to be done. */
static bool pin_fast(struct pinfs_map *m, size_t page, uint32_t unit, bool *ret_counted)
{
	uint32_t need = PINFS_PAGE_PRESENT | (unit == PINFS_PAGE_WRITER ? (uint32_t)PINFS_PAGE_WRITE : 0), old = a32_read(pins_of(m, page));

	do {
		*ret_counted = counted(old, unit) < COUNT_MOST;
		if (!*ret_counted)
			return false;
	} while (!a32_cas(pins_of(m, page), &old, old + unit));
	/* Pairs with the daemon's barrier between its change of the state and its look at the count (R10). */
	sync_mb();
	return (state_of(m, page) & need) == need;
}

/* False: it has none. *ret_held: the daemon has to be told. */
static bool unpin_one(struct pinfs_map *m, size_t page, uint32_t unit, bool *ret_held)
{
	uint32_t old = a32_read(pins_of(m, page));

	do {
		if (!counted(old, unit))
			return false;
	} while (!a32_cas(pins_of(m, page), &old, old - unit));
	/* Pairs with the daemon's barrier between HELD and its look at the count. */
	sync_mb();
	*ret_held = old == unit && state_of(m, page) & PINFS_PAGE_HELD;
	return true;
}

static int ask_range(struct pinfs_map *m, unsigned type, size_t first, size_t count, unsigned flags)
{
	struct pinfs_message msg = {.type = type, .id = m->id, .page = first, .count = count, .flags = flags};

	return connection_ask(m->connection, &msg, -1, NULL);
}

static int unpin_range(struct pinfs_map *m, size_t first, size_t count, uint32_t unit)
{
	size_t held = 0;
	int r = 0;

	for (size_t i = first; i < first + count; i++) {
		bool one = false;

		if (!unpin_one(m, i, unit, &one))
			r = -EINVAL;
		held += one;
		if (held && (!one || i + 1 == first + count)) {
			ask_range(m, PINFS_UNHOLD, i + one - held, held, 0);
			held = 0;
		}
	}
	return r;
}

int pinfs_pin(struct pinfs_map *m, size_t offset, size_t length, unsigned flags)
{
	size_t first, count, done, slow = 0;
	uint32_t unit = 0;
	int r = range_of(m, offset, length, &first, &count);

	if (r == 0)
		r = unit_of(m, flags, &unit);
	if (r < 0)
		return r;
	for (done = 0; r == 0 && done < count; done++) {
		bool counts, fast = pin_fast(m, first + done, unit, &counts);

		if (!counts) {
			r = -EAGAIN;
			break;
		}
		slow += !fast;
		/* In a row, as many at once as there are. */
		if (slow && (fast || done + 1 == count)) {
			r = flags & PINFS_NOWAIT ? -EAGAIN :
				ask_range(m, PINFS_PIN, first + done + !fast - slow, slow, unit == PINFS_PAGE_WRITER ? PINFS_PIN_WRITE : 0);
			slow = 0;
		}
	}
	if (r == 0 || !done)
		return r;
	unpin_range(m, first, done, unit);
	return r;
}

int pinfs_unpin(struct pinfs_map *m, size_t offset, size_t length, unsigned flags)
{
	size_t first, count;
	uint32_t unit = 0;
	int r = range_of(m, offset, length, &first, &count);

	if (r == 0)
		r = unit_of(m, flags, &unit);
	return r < 0 ? r : unpin_range(m, first, count, unit);
}

int pinfs_sync(struct pinfs_map *m)
{
	return connection_mine(m->connection) ? tell(m, PINFS_SYNC, m->id) : -EPIPE;
}

int pinfs_populate(struct pinfs_map *m, size_t offset, size_t length, unsigned flags)
{
	size_t first, count;
	uint32_t unit = 0;
	int r = range_of(m, offset, length, &first, &count);

	if (r == 0)
		r = unit_of(m, flags, &unit);
	return r < 0 ? r : ask_range(m, PINFS_POPULATE, first, count, unit == PINFS_PAGE_WRITER ? PINFS_PIN_WRITE : 0);
}

int pinfs_query(struct pinfs_map *m, size_t offset, size_t length, struct pinfs_page_info *ret)
{
	size_t first, count;
	int r = range_of(m, offset, length, &first, &count);

	for (size_t i = 0; r == 0 && i < count; i++) {
		uint32_t state = state_of(m, first + i), pins = a32_read(pins_of(m, first + i));

		ret[i] = (struct pinfs_page_info){
			.flags = (state & PINFS_PAGE_PRESENT ? PINFS_IS_PRESENT : 0) | (state & PINFS_PAGE_WRITE ? PINFS_IS_WRITABLE : 0) |
				(state & PINFS_PAGE_HELD ? PINFS_IS_HELD : 0),
			.readers = (uint16_t)counted(pins, PINFS_PAGE_READER),
			.writers = (uint16_t)counted(pins, PINFS_PAGE_WRITER),
		};
	}
	return r;
}
