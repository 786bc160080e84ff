/* SPDX-License-Identifier: MIT */
/* The server of shared maps, with real clients: what they get, what they may not, and what is left of them when they go. */
#include "vfs_support.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sync.h"
#include "mm/uffd.h"
#include "share/share.h"

#define CACHE (8u << 20)
#define SIZE (40u * PAGE + 123)

struct fixture {
	struct memstore m;
	struct vfs *v;
	struct share *share;
	uint64_t ino;
	uint8_t want[SIZE];
};

static void begin_with(struct fixture *f, const struct share_options *limits)
{
	struct share_options o = *limits;
	struct rng rng = {5};

	memstore_init(&f->m, 0);
	f->v = open_on(&f->m, CACHE, 0);
	f->ino = make_file(f->v, "f");
	fill(&rng, f->v, f->ino, 0, f->want, SIZE);
	o.vfs = f->v;
	o.name = "image";
	assert_int_equal(share_new(&o, &f->share), 0);
}

static void begin(struct fixture *f)
{
	begin_with(f, &(struct share_options){0});
}

static void until_alone(struct fixture *f)
{
	for (unsigned i = 0; share_clients(f->share); i++) {
		must(i < 10000000);
		sched_yield();
	}
}

static void end(struct fixture *f)
{
	until_alone(f);
	share_free(f->share);
	assert_false(vfs_is_shared(f->v, f->ino));
	assert_int_equal(vfs_sync(f->v), 0);
	vfs_free(f->v);
	memstore_destroy(&f->m);
	assert_int_equal(sync_violations(), 0);
}

/* ---- a client ---- */

struct client {
	int sock, uffd;
	uint64_t tag;
	uint8_t *map;
	size_t len;
	struct pinfs_page *table;
	uint64_t file, id;
};

static int connect_raw(struct fixture *f)
{
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	must(share_connect(f->share, ends[1]) == 0);
	return ends[0];
}

static bool send_message(int sock, const struct pinfs_message *m, size_t len, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {(void *)m, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		h.msg_control = &control;
		h.msg_controllen = sizeof(control);
	}
	return sendmsg(sock, &h, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool receive(int sock, struct pinfs_message *ret, int *ret_fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {ret, sizeof(*ret)};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

	if (recvmsg(sock, &h, MSG_CMSG_CLOEXEC) != sizeof(*ret))
		return false;
	if (ret_fd && h.msg_controllen)
		memcpy(ret_fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
	return true;
}

/* The reply's error, or -EPIPE: cut off. */
static int ask(struct client *c, struct pinfs_message *m, int fd, int *ret_fd)
{
	m->size = sizeof(*m);
	m->tag = ++c->tag;
	if (!send_message(c->sock, m, sizeof(*m), fd) || !receive(c->sock, m, ret_fd))
		return -EPIPE;
	must(m->tag == c->tag);
	return m->error;
}

static int hello(struct client *c)
{
	struct uffdio_api api = {.api = UFFD_API, .features = uffd_missing(0)};
	struct pinfs_message m = {.type = PINFS_HELLO, .id = PINFS_PROTOCOL_VERSION};

	c->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (geteuid() ? UFFD_USER_MODE_ONLY : 0));
	must(c->uffd >= 0 && ioctl(c->uffd, UFFDIO_API, &api) == 0);
	return ask(c, &m, c->uffd, NULL);
}

static int open_token(struct client *c, const uint8_t token[PINFS_TOKEN_SIZE], int *ret_memfd)
{
	struct pinfs_message m = {.type = PINFS_OPEN};
	int r;

	memcpy(m.token, token, sizeof(m.token));
	r = ask(c, &m, -1, ret_memfd);
	c->file = m.id;
	return r;
}

/* As the ioctl gives it to who has the file open. */
struct token {
	uint8_t bytes[PINFS_TOKEN_SIZE];
};
static struct token token_of(struct fixture *f, bool write)
{
	struct token t;

	must(share_token(f->share, f->ino, write, t.bytes) == 0);
	return t;
}

static int map_at(struct client *c, int memfd, size_t pages, bool write)
{
	struct uffdio_register r = {.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | (write ? UFFDIO_REGISTER_MODE_WP : 0)};
	struct pinfs_message m = {.type = PINFS_MAP, .id = c->file, .count = pages};
	int table = -1, error;

	c->len = pages * PAGE;
	c->map = mmap(NULL, c->len, PROT_READ | (write ? PROT_WRITE : 0), write ? MAP_SHARED : MAP_PRIVATE, memfd, 0);
	must(c->map != MAP_FAILED);
	r.range = (struct uffdio_range){.start = (uintptr_t)c->map, .len = c->len};
	must(ioctl(c->uffd, UFFDIO_REGISTER, &r) == 0);
	m.address = (uintptr_t)c->map;
	error = ask(c, &m, -1, &table);
	if (error < 0)
		return error;
	c->id = m.id;
	c->table = mmap(NULL, pages * sizeof(*c->table), PROT_READ | PROT_WRITE, MAP_SHARED, table, 0);
	must(c->table != MAP_FAILED);
	close(table);
	return 0;
}

/* A client that has mapped all of the file, and a page more. */
static void client_start(struct client *c, int sock, struct token token, bool write)
{
	int memfd = -1;

	*c = (struct client){.sock = sock};
	must(hello(c) == 0);
	must(open_token(c, token.bytes, &memfd) == 0);
	must(map_at(c, memfd, DIV_ROUND_UP(SIZE, PAGE) + 1, write) == 0);
	close(memfd);
}

static void client_open(struct client *c, struct fixture *f, bool write)
{
	client_start(c, connect_raw(f), token_of(f, write), write);
}

static void client_close(struct client *c)
{
	munmap(c->map, c->len);
	munmap(c->table, c->len / PAGE * sizeof(*c->table));
	close(c->uffd);
	close(c->sock);
}

static int simple(struct client *c, unsigned type, uint64_t page, uint64_t count, unsigned flags)
{
	struct pinfs_message m = {.type = type, .id = type == PINFS_CLOSE ? c->file : c->id, .page = page, .count = count, .flags = flags};

	return ask(c, &m, -1, NULL);
}

static void pin(struct client *c, unsigned page, bool write)
{
	__atomic_fetch_add(&c->table[page].pins, write ? PINFS_PAGE_WRITER : PINFS_PAGE_READER, __ATOMIC_SEQ_CST);
	must(simple(c, PINFS_PIN, page, 1, write ? PINFS_PIN_WRITE : 0) == 0);
}

/* ---- what it is for ---- */

static void a_file_is_mapped_changed_and_synced(void **state)
{
	static struct fixture f;
	struct client c;

	begin(&f);
	client_open(&c, &f, true);
	assert_memory_equal(c.map, f.want, SIZE);
	/* A store here is there, a write there is here. */
	c.map[5 * PAGE + 7] = f.want[5 * PAGE + 7] = 'x';
	assert_true(file_is(f.v, f.ino, f.want, SIZE));
	assert_int_equal(vfs_write(f.v, f.ino, 9 * PAGE, "written", 7, 0), 7);
	memcpy(f.want + 9 * PAGE, "written", 7);
	assert_memory_equal(c.map, f.want, SIZE);
	assert_int_equal(simple(&c, PINFS_POPULATE, 0, 41, PINFS_PIN_WRITE), 0);
	pin(&c, 3, true);
	c.map[3 * PAGE] = f.want[3 * PAGE] = 'p';
	assert_int_equal(simple(&c, PINFS_SYNC, 0, 0, 0), 0);
	__atomic_fetch_sub(&c.table[3].pins, PINFS_PAGE_WRITER, __ATOMIC_SEQ_CST);
	assert_int_equal(simple(&c, PINFS_UNHOLD, 3, 1, 0), 0);
	assert_int_equal(simple(&c, PINFS_CLOSE, 0, 0, 0), -EBUSY);
	assert_int_equal(simple(&c, PINFS_UNMAP, 0, 0, 0), 0);
	assert_int_equal(simple(&c, PINFS_UNMAP, 0, 0, 0), -EBADF);
	assert_int_equal(simple(&c, PINFS_CLOSE, 0, 0, 0), 0);
	assert_false(vfs_is_shared(f.v, f.ino));
	client_close(&c);
	until_alone(&f);
	/* What was synced is there after the power has failed. */
	{
		struct memstore copy;
		struct vfs *v;

		memstore_clone(&f.m, &copy);
		v = open_on(&copy, CACHE, 0);
		assert_true(file_is(v, find(v, "f"), f.want, SIZE));
		vfs_free(v);
		memstore_destroy(&copy);
	}
	end(&f);
}

static void who_may_only_read_can_only_read(void **state)
{
	static struct fixture f;
	struct client c = {0};
	int memfd = -1;

	begin(&f);
	c.sock = connect_raw(&f);
	assert_int_equal(hello(&c), 0);
	assert_int_equal(open_token(&c, token_of(&f, false).bytes, &memfd), 0);
	assert_true(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0) == MAP_FAILED);
	assert_int_equal(pwrite(memfd, "x", 1, 0), -1);
	assert_int_equal(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
	assert_int_equal(map_at(&c, memfd, 41, false), 0);
	assert_memory_equal(c.map, f.want, SIZE);
	/* What changes is seen. */
	assert_int_equal(vfs_write(f.v, f.ino, PAGE, "new", 3, 0), 3);
	assert_memory_equal(c.map + PAGE, "new", 3);
	assert_int_equal(simple(&c, PINFS_PIN, 0, 1, PINFS_PIN_WRITE), -EFAULT);
	close(memfd);
	client_close(&c);
	end(&f);
}

static void tokens_are_good_once(void **state)
{
	static struct fixture f;
	struct pinfs_message m = {.type = PINFS_OPEN}, again;
	struct client c = {0};
	int fd = -1;

	begin(&f);
	c.sock = connect_raw(&f);
	assert_int_equal(hello(&c), 0);
	assert_int_equal(hello(&c), -EALREADY);
	assert_int_equal(ask(&c, &m, -1, NULL), -EACCES);
	assert_int_equal(share_token(f.share, f.ino, true, m.token), 0);
	m.type = PINFS_OPEN;
	again = m;
	assert_int_equal(ask(&c, &m, -1, &fd), 0);
	close(fd);
	assert_int_equal(ask(&c, &again, -1, NULL), -EACCES);
	/* Of a file that is gone by now. */
	m = (struct pinfs_message){.type = PINFS_OPEN};
	assert_int_equal(share_token(f.share, 1u << 30, true, m.token), 0);
	assert_int_equal(ask(&c, &m, -1, NULL), -ENOENT);
	close(c.sock);
	end(&f);
}

/* ---- clients that die, and such that don't keep to it ---- */

/* A child with a connection; what it was told to do first is done. */
static pid_t child_start(struct fixture *f, void (*fn)(struct client *c))
{
	struct token token = token_of(f, true);
	int sock = connect_raw(f), ready[2];
	char byte;
	pid_t child;

	must(pipe(ready) == 0);
	child = fork();
	must(child >= 0);
	if (!child) {
		struct client c;

		client_start(&c, sock, token, true);
		fn(&c);
		must(write(ready[1], "x", 1) == 1);
		for (;;)
			((volatile uint8_t *)c.map)[25 * PAGE]++;
	}
	close(sock);
	close(ready[1]);
	must(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	return child;
}

static void child_kill(pid_t child)
{
	int status;

	must(kill(child, SIGKILL) == 0);
	must(waitpid(child, &status, 0) == child);
	must(WIFSIGNALED(status));
}

static void pin_and_store(struct client *c)
{
	for (unsigned p = 0; p < 20; p++) {
		pin(c, p, true);
		c->map[p * PAGE] = 'd';
	}
}

static void a_client_that_is_killed_leaves_nothing(void **state)
{
	static struct fixture f;
	struct cache_stats stats;

	begin(&f);
	for (unsigned round = 0; round < 5; round++) {
		pid_t child = child_start(&f, pin_and_store);

		assert_true(vfs_is_shared(f.v, f.ino));
		/* Its pins are held, then. */
		assert_int_equal(vfs_fsync(f.v, f.ino, NULL, false), 0);
		child_kill(child);
		until_alone(&f);
		assert_false(vfs_is_shared(f.v, f.ino));
		assert_int_equal(vfs_fsync(f.v, f.ino, NULL, false), 0);
		vfs_cache_stats(f.v, &stats);
		assert_int_equal(stats.dirty, 0);
	}
	for (unsigned p = 0; p < 20; p++)
		f.want[p * PAGE] = 'd';
	{
		uint8_t *buf = malloc(SIZE);

		/* And of what it stored without a pin, nobody knows how much. */
		assert_int_equal(read_all(f.v, f.ino, 0, SIZE, buf), SIZE);
		f.want[25 * PAGE] = buf[25 * PAGE];
		assert_memory_equal(buf, f.want, SIZE);
		free(buf);
	}
	end(&f);
}

/* True: the server has ended the connection. */
static bool is_cut(int sock)
{
	struct pinfs_message m;

	for (;;) {
		ssize_t n = recv(sock, &m, sizeof(m), 0);

		if (n <= 0)
			return true;
		if (n != sizeof(m))
			return false;
	}
}

static void what_is_no_message_ends_the_connection(void **state)
{
	struct pinfs_message good = {.size = sizeof(good), .type = PINFS_SYNC}, bad[3] = {good, good, good};
	static struct fixture f;
	struct client other;

	begin(&f);
	client_open(&other, &f, true);
	bad[0].size--;
	bad[1].type = 999;
	bad[2].type = 0;
	for (unsigned i = 0; i < 6; i++) {
		int sock = connect_raw(&f);
		size_t len = i == 3 ? 1 : i == 4 ? sizeof(good) - 1 : sizeof(good);

		if (i == 5) {
			uint8_t large[2 * sizeof(good)] = {0};

			must(send(sock, large, sizeof(large), MSG_NOSIGNAL) > 0);
		} else {
			must(send_message(sock, i < 3 ? &bad[i] : &good, len, -1));
		}
		assert_true(is_cut(sock));
		close(sock);
	}
	/* Others don't notice. */
	assert_int_equal(simple(&other, PINFS_SYNC, 0, 0, 0), 0);
	assert_int_equal(other.map[0], f.want[0]);
	client_close(&other);
	end(&f);
}

static void who_reads_no_replies_is_cut_off(void **state)
{
	struct pinfs_message m = {.size = sizeof(m), .type = PINFS_CLOSE, .id = 77};
	static struct fixture f;
	int sock;

	begin(&f);
	sock = connect_raw(&f);
	while (send_message(sock, &m, sizeof(m), -1))
		;
	assert_true(is_cut(sock));
	close(sock);
	end(&f);
}

static void limits_are_kept(void **state)
{
	static struct fixture f;
	struct client c = {0};
	int memfd = -1, socks[4];

	begin_with(&f, &(struct share_options){.clients_most = 3, .files_most = 2, .maps_most = 2, .pages_most = 50, .held_most = 3});
	c.sock = connect_raw(&f);
	assert_int_equal(hello(&c), 0);
	assert_int_equal(open_token(&c, token_of(&f, true).bytes, &memfd), 0);
	assert_int_equal(map_at(&c, memfd, 51, true), -EDQUOT);
	munmap(c.map, c.len);
	assert_int_equal(map_at(&c, memfd, 41, true), 0);
	{
		struct client d = c;
		int again = -1;

		assert_int_equal(map_at(&d, memfd, 10, true), -EDQUOT);
		munmap(d.map, d.len);
		assert_int_equal(open_token(&d, token_of(&f, true).bytes, &again), 0);
		close(again);
		assert_int_equal(open_token(&d, token_of(&f, true).bytes, &again), -EMFILE);
		c.tag = d.tag;
	}
	socks[0] = connect_raw(&f);
	socks[1] = connect_raw(&f);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, socks + 2), 0);
	assert_int_equal(share_connect(f.share, socks[3]), -EUSERS);
	for (unsigned i = 0; i < 3; i++)
		close(socks[i]);
	/* More pins than it may have: when it matters, it is cut off. */
	for (unsigned p = 0; p < 4; p++) {
		pin(&c, p, true);
		c.map[p * PAGE] = 1;
	}
	assert_int_equal(vfs_fsync(f.v, f.ino, NULL, false), 0);
	simple(&c, PINFS_SYNC, 0, 0, 0);
	assert_true(is_cut(c.sock));
	close(memfd);
	client_close(&c);
	end(&f);
}

/* Who reads its faults would wait for one. */
static void let_reads_wait(struct client *c)
{
	must(fcntl(c->uffd, F_SETFL, 0) == 0);
}

static unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 4096; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Descriptors that nobody asked for; what is no userfaultfd; one that would have the server wait; one with events of its own. */
static void descriptors_are_not_kept(void **state)
{
	struct pinfs_message m = {.size = sizeof(m), .type = PINFS_CLOSE, .id = 77};
	static struct fixture f;
	unsigned before;

	begin(&f);
	before = open_files();
	for (unsigned i = 0; i < 20; i++) {
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(2 * sizeof(int))];
		} control = {.header = {.cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
		struct iovec iov = {&m, sizeof(m)};
		struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
		int sock = connect_raw(&f), fds[2] = {sock, sock};

		memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
		assert_int_equal(sendmsg(sock, &h, MSG_NOSIGNAL), sizeof(m));
		assert_true(is_cut(sock));
		close(sock);
	}
	for (unsigned i = 0; i < 3; i++) {
		struct client c = {.sock = connect_raw(&f)};
		struct pinfs_message hello_message = {.type = PINFS_HELLO, .id = PINFS_PROTOCOL_VERSION};
		int fd = i ? memfd_create("no userfaultfd", MFD_CLOEXEC) : open("/dev/null", O_RDWR | O_CLOEXEC);

		assert_int_equal(ask(&c, &hello_message, i == 2 ? -1 : fd, NULL), -EBADF);
		close(fd);
		close(c.sock);
	}
	until_alone(&f);
	assert_int_equal(open_files(), before);
	{
		struct client other;
		pid_t child;

		client_open(&other, &f, true);
		child = child_start(&f, let_reads_wait);
		while (share_clients(f.share) > 1)
			sched_yield();
		assert_int_equal(other.map[9 * PAGE], f.want[9 * PAGE]);
		child_kill(child);
		client_close(&other);
	}
	end(&f);
}

/* A map of addresses where the process has nothing: what is asked of it ends. */
static void a_map_of_nothing_is_refused_when_it_matters(void **state)
{
	struct pinfs_message m = {.type = PINFS_MAP, .count = 10, .address = 1u << 30};
	static struct fixture f;
	struct client c;

	begin(&f);
	client_open(&c, &f, true);
	m.id = c.file;
	assert_int_equal(ask(&c, &m, -1, NULL), 0);
	c.id = m.id;
	assert_int_equal(simple(&c, PINFS_PIN, 0, 10, PINFS_PIN_WRITE), -EFAULT);
	assert_int_equal(simple(&c, PINFS_UNMAP, 0, 0, 0), 0);
	client_close(&c);
	end(&f);
}

/* Random requests, of which many are nearly right. */
static void any_requests_do_no_harm(void **state)
{
	static const uint64_t values[] = {0, 1, 2, 3, 40, 41, 42, PAGE, UINT64_MAX, UINT64_MAX - PAGE + 1, (uint64_t)1 << 63, (uint64_t)1 << 32};
	static struct fixture f;
	struct rng rng = {11};
	struct client other;

	begin(&f);
	client_open(&other, &f, false);
	for (unsigned round = 0; round < 60; round++) {
		struct client c;

		client_open(&c, &f, true);
		for (unsigned i = 0; i < 50; i++) {
			struct pinfs_message m = {
				.type = (uint32_t)(1 + rng_below(&rng, PINFS_POPULATE)),
				.flags = (uint32_t)rng_below(&rng, 3),
				.id = rng_below(&rng, 3) ? 1 + rng_below(&rng, 4) : values[rng_below(&rng, ARRAY_SIZE(values))],
				.page = values[rng_below(&rng, ARRAY_SIZE(values))],
				.count = values[rng_below(&rng, ARRAY_SIZE(values))],
				.address = rng_below(&rng, 2) ? (uintptr_t)c.map : values[rng_below(&rng, ARRAY_SIZE(values))],
			};
			int fd = -1;

			/* What would take for ever: a huge range of zeroes is none of the map's. */
			if (ask(&c, &m, rng_below(&rng, 8) ? -1 : c.uffd, &fd) == -EPIPE)
				break;
			if (fd >= 0)
				close(fd);
		}
		/* Its table says what it likes. */
		for (unsigned p = 0; p < c.len / PAGE; p++)
			__atomic_store_n(&c.table[p].pins, (uint32_t)rng_next(&rng), __ATOMIC_RELAXED);
		assert_int_equal(vfs_fsync(f.v, f.ino, NULL, false), 0);
		client_close(&c);
		assert_memory_equal(other.map, f.want, SIZE);
	}
	client_close(&other);
	until_alone(&f);
	assert_true(file_is(f.v, f.ino, f.want, SIZE));
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_mapped_changed_and_synced),
		cmocka_unit_test(who_may_only_read_can_only_read),
		cmocka_unit_test(tokens_are_good_once),
		cmocka_unit_test(a_client_that_is_killed_leaves_nothing),
		cmocka_unit_test(what_is_no_message_ends_the_connection),
		cmocka_unit_test(who_reads_no_replies_is_cut_off),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(descriptors_are_not_kept),
		cmocka_unit_test(a_map_of_nothing_is_refused_when_it_matters),
		cmocka_unit_test(any_requests_do_no_harm),
	};

	return cmocka_run_group_tests_name("share", tests, vfs_setup, vfs_teardown);
}
