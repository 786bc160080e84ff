/* SPDX-License-Identifier: MIT */
#include "support.h"

#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "codec/codec.h"

uint64_t rng_next(struct rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *r, uint64_t below)
{
	return rng_next(r) % below;
}

void rng_bytes(struct rng *r, uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)rng_next(r);
}

void rng_text(struct rng *r, uint8_t *buf, size_t len)
{
	static const char *const words[] = {"folio ", "mapping ", "pin ", "mkwrite ", "dirty ", "inode ", "\n", "the "};

	for (size_t i = 0; i < len;) {
		const char *w = words[rng_below(r, ARRAY_SIZE(words))];
		size_t n = MIN(strlen(w), len - i);

		memcpy(buf + i, w, n);
		i += n;
		if (i < len && rng_below(r, 3) == 0)
			buf[i++] = (uint8_t)('0' + rng_below(r, 10));
	}
}

static char directory[128];

const char *temp_dir(void)
{
	const char *base = getenv("TMPDIR");

	if (!*directory) {
		snprintf(directory, sizeof(directory), "%s/pinfs-unit-XXXXXX", base && *base ? base : "/tmp");
		if (!mkdtemp(directory)) {
			perror(directory);
			abort();
		}
	}
	return directory;
}

char *temp_path(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", temp_dir(), name) < 0)
		abort();
	return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void remove_tree(const char *path)
{
	nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

int support_end(void **state)
{
	if (*directory)
		remove_tree(directory);
	*directory = 0;
	return 0;
}

void write_file(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write_all(fd, data, len), 0);
	close(fd);
}

uint8_t *read_file(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	data = malloc((size_t)st.st_size + 1);
	assert_non_null(data);
	assert_int_equal(pread_all(fd, data, (size_t)st.st_size, 0), 0);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

bool in_child(void (*fn)(void *), void *context)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		fn(context);
		_exit(42);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

/* From the environment, or the one that was built together with this test. */
static const char *mkfs_program(void)
{
	static char path[PATH_MAX + 32];
	const char *given = getenv("PINFS_MKFS");
	char self[PATH_MAX] = "";

	if (given)
		return given;
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		abort();
	snprintf(path, sizeof(path), "%s/../mkfs.pinfs", dirname(self));
	return path;
}

int mkfs(const char *arg, ...)
{
	const char *argv[40] = {mkfs_program(), "-q", "-f"};
	extern char **environ;
	size_t n = 3;
	va_list ap;
	pid_t pid;
	int status;

	va_start(ap, arg);
	for (; arg && n + 1 < ARRAY_SIZE(argv); arg = va_arg(ap, const char *))
		argv[n++] = arg;
	va_end(ap);
	assert_null(arg);
	assert_int_equal(posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

struct guard guard_new(size_t len, bool at_end)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = align_up(MAX(len, (size_t)1), page);
	struct guard g = {.len = len, .map_len = inner + 2 * page};

	g.map = mmap(NULL, g.map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(g.map, MAP_FAILED);
	assert_int_equal(mprotect(g.map, page, PROT_NONE), 0);
	assert_int_equal(mprotect((uint8_t *)g.map + page + inner, page, PROT_NONE), 0);
	g.data = (uint8_t *)g.map + page + (at_end ? inner - len : 0);
	return g;
}

void guard_free(struct guard *g)
{
	munmap(g->map, g->map_len);
	*g = (struct guard){0};
}

/* ---- forge ---- */

static void unpack_chunk(const uint8_t *image, const struct pinfs_section *s, const struct pinfs_block *b, uint8_t *dst)
{
	uint32_t raw = pinfs_get32(b->raw) & PINFS_BLOCK_RAW_MASK;
	const struct codec_ops *codec = codec_by_id(pinfs_get32(b->raw) >> PINFS_BLOCK_CODEC_SHIFT);
	uint8_t *plain = malloc(raw);

	assert_non_null(plain);
	assert_int_equal(codec->decompress(image + pinfs_get64(b->offset), pinfs_get32(b->stored), plain, raw), 0);
	if (pinfs_get32(s->filter) == PINFS_FILTER_DELTA)
		codec_unfilter_delta(plain, raw, pinfs_get32(s->record_size), dst);
	else
		memcpy(dst, plain, raw);
	free(plain);
}

void forge_open(const char *path, struct forge *ret)
{
	struct forge f = {0};
	size_t len;
	uint8_t *image = read_file(path, &len);

	assert_true(len > 2 * PINFS_SUPER_SIZE);
	memcpy(&f.super, image, sizeof(f.super));
	f.data_len = (size_t)pinfs_get64(f.super.data_end) - PINFS_SUPER_SIZE;
	f.data = malloc(f.data_len + 1);
	assert_non_null(f.data);
	memcpy(f.data, image + PINFS_SUPER_SIZE, f.data_len);
	for (unsigned i = 0; i < pinfs_get32(f.super.section_count); i++) {
		const struct pinfs_section *s = &f.super.sections[i];
		unsigned type = pinfs_get32(s->type);
		size_t size = (size_t)pinfs_get64(s->raw_size), chunk = pinfs_get32(s->chunk_size);

		f.sections[type].size = size;
		f.sections[type].raw = malloc(size + 1);
		assert_non_null(f.sections[type].raw);
		for (size_t n = 0; n * chunk < size; n++) {
			const struct pinfs_index_page *page = (const void *)(image + pinfs_get64(s->index_offset) +
				n / PINFS_INDEX_ENTRIES * PINFS_PAGE_SIZE);

			unpack_chunk(image, s, &page->chunk[n % PINFS_INDEX_ENTRIES], f.sections[type].raw + n * chunk);
		}
	}
	free(image);
	*ret = f;
}

void forge_free(struct forge *f)
{
	for (unsigned t = 0; t < PINFS_SECTION_TYPES; t++)
		free(f->sections[t].raw);
	free(f->data);
	*f = (struct forge){0};
}

struct pinfs_inode *forge_inode(struct forge *f, uint32_t ino)
{
	assert_true(ino * sizeof(struct pinfs_inode) <= f->sections[PINFS_SECTION_INODES].size);
	return (struct pinfs_inode *)f->sections[PINFS_SECTION_INODES].raw + (ino - 1);
}

struct pinfs_block *forge_block(struct forge *f, uint32_t block)
{
	assert_true((block + 1) * sizeof(struct pinfs_block) <= f->sections[PINFS_SECTION_BLOCKS].size);
	return (struct pinfs_block *)f->sections[PINFS_SECTION_BLOCKS].raw + block;
}

size_t forge_add(struct forge *f, unsigned type, const void *data, size_t len)
{
	size_t at = f->sections[type].size;

	f->sections[type].raw = realloc(f->sections[type].raw, at + len + 1);
	assert_non_null(f->sections[type].raw);
	memcpy(f->sections[type].raw + at, data, len);
	f->sections[type].size = at + len;
	return at;
}

void super_seal(struct pinfs_super *super)
{
	super->checksum = pinfs_put64(codec_checksum(super, offsetof(struct pinfs_super, checksum)));
}

struct buffer {
	uint8_t *data;
	size_t len;
};

static size_t buffer_add(struct buffer *b, const void *data, size_t len)
{
	size_t at = b->len;

	b->data = realloc(b->data, at + len + 1);
	assert_non_null(b->data);
	memcpy(b->data + at, data, len);
	b->len = at + len;
	return at;
}

static void buffer_align(struct buffer *b)
{
	static const uint8_t zero[PINFS_PAGE_SIZE];

	buffer_add(b, zero, (size_t)(align_up(b->len, PINFS_PAGE_SIZE) - b->len));
}

/* One section: its chunks, stored raw, and their descriptors. */
static struct pinfs_block *build_chunks(const struct forge *f, const struct pinfs_section *s, struct buffer *out)
{
	unsigned type = pinfs_get32(s->type), filter = pinfs_get32(s->filter);
	size_t size = f->sections[type].size, chunk = pinfs_get32(s->chunk_size), count = DIV_ROUND_UP(size, chunk);
	struct pinfs_block *blocks = calloc(count + 1, sizeof(*blocks));
	uint8_t *plain = malloc(chunk);

	assert_non_null(blocks);
	assert_non_null(plain);
	for (size_t n = 0; n < count; n++) {
		const uint8_t *raw = f->sections[type].raw + n * chunk;
		size_t len = MIN(chunk, size - n * chunk);

		if (filter == PINFS_FILTER_DELTA)
			codec_filter_delta(raw, len, pinfs_get32(s->record_size), plain);
		else
			memcpy(plain, raw, len);
		blocks[n].offset = pinfs_put64(buffer_add(out, plain, len));
		blocks[n].stored = pinfs_put32((uint32_t)len);
		blocks[n].raw = pinfs_put32((uint32_t)len | PINFS_CODEC_RAW << PINFS_BLOCK_CODEC_SHIFT);
		blocks[n].checksum = pinfs_put64(codec_checksum(plain, len));
	}
	free(plain);
	return blocks;
}

static void build_index(const struct forge *f, struct pinfs_section *s, const struct pinfs_block *blocks,
	struct buffer *out)
{
	size_t size = f->sections[pinfs_get32(s->type)].size, count = DIV_ROUND_UP(size, pinfs_get32(s->chunk_size));

	buffer_align(out);
	s->raw_size = pinfs_put64(size);
	s->index_offset = pinfs_put64(count ? out->len : 0);
	s->index_pages = pinfs_put64(DIV_ROUND_UP(count, PINFS_INDEX_ENTRIES));
	for (size_t first = 0; first < count; first += PINFS_INDEX_ENTRIES) {
		struct pinfs_index_page page = {
			.magic = pinfs_put32(PINFS_INDEX_MAGIC),
			.type = s->type,
			.first = pinfs_put64(first),
		};

		memcpy(page.chunk, blocks + first, MIN(count - first, (size_t)PINFS_INDEX_ENTRIES) * sizeof(*blocks));
		if (f->change_index)
			f->change_index(&page, f->context);
		page.checksum = pinfs_put64(codec_checksum(&page, offsetof(struct pinfs_index_page, checksum)));
		buffer_add(out, &page, sizeof(page));
	}
}

uint8_t *forge_build(const struct forge *f, size_t *ret_len)
{
	struct pinfs_block *blocks[PINFS_SECTION_TYPES] = {0};
	struct pinfs_super super = f->super;
	struct buffer out = {0};

	buffer_add(&out, &super, sizeof(super));
	buffer_add(&out, f->data, f->data_len);
	for (unsigned i = 0; i < pinfs_get32(super.section_count); i++)
		blocks[i] = build_chunks(f, &super.sections[i], &out);
	for (unsigned i = 0; i < pinfs_get32(super.section_count); i++) {
		build_index(f, &super.sections[i], blocks[i], &out);
		free(blocks[i]);
		if (f->change_section)
			f->change_section(&super.sections[i], f->context);
	}
	super.inode_count = pinfs_put64(f->sections[PINFS_SECTION_INODES].size / sizeof(struct pinfs_inode));
	super.block_count = pinfs_put64(f->sections[PINFS_SECTION_BLOCKS].size / sizeof(struct pinfs_block));
	super.image_size = pinfs_put64(out.len + sizeof(super));
	if (f->keep_super)
		super = f->super;
	super.is_backup = pinfs_put32(1);
	super_seal(&super);
	buffer_add(&out, &super, sizeof(super));
	super.is_backup = pinfs_put32(0);
	super_seal(&super);
	memcpy(out.data, &super, sizeof(super));
	*ret_len = out.len;
	return out.data;
}
