/* SPDX-License-Identifier: MIT */
/* What the commands that look into a delta share. */
#include "cli/cli.h"

#include <limits.h>

#include "base/log.h"

char *cli_delta_beside(const char *image)
{
	_cleanup_free_ char *real = realpath(image, NULL);
	char *path;

	if (!real) {
		log_error("can't open %s: %s", image, strerror(errno));
		return NULL;
	}
	if (asprintf(&path, "%s.delta", real) < 0) {
		log_error("out of memory");
		return NULL;
	}
	return path;
}

static void on_damage(void *context, uint64_t offset, const char *text)
{
	log_error("%s: byte %ju: %s", (const char *)context, (uintmax_t)offset, text);
}

static int open_failed(const char *path, int r)
{
	if (r == -EBUSY)
		log_error("%s is in use by a mount; unmount it first", path);
	else
		log_error("can't open the delta %s: %s", path, r == -ENOTBLK ? "it is no regular file" : strerror(-r));
	return r;
}

int cli_delta_open(const char *path, struct image *image, unsigned flags, struct delta **ret)
{
	struct delta_options options = {
		.read_only = true,
		.no_thread = true,
		.any_image = !image,
		.on_damage = on_damage,
		.context = (void *)path,
	};
	char error[DELTA_ERROR_SIZE];
	struct store *store;
	int r = store_open(path, flags & CLI_DELTA_EXCLUSIVE ? 0 : STORE_READ_ONLY, &store);

	if (r < 0)
		return open_failed(path, r);
	if (image) {
		const struct image_info *info = image_get_info(image);

		options.image_size = info->image_size;
		options.image_inodes = info->inode_count;
		memcpy(options.image_uuid, info->uuid, sizeof(options.image_uuid));
		memcpy(options.image_hash, info->content_hash, sizeof(options.image_hash));
	}
	r = delta_open(store, &options, ret, error);
	if (r < 0) {
		store_close(store);
		if (r != -EMEDIUMTYPE || !(flags & CLI_DELTA_QUIET))
			log_error("%s: %s", path, error);
	}
	return r;
}

int cli_delta_has_content(struct delta *delta, const struct delta_inode *inode, const struct image_inode *image, bool *ret)
{
	struct delta_extent e;
	int r;

	if (!S_ISREG(inode->mode) || !image || inode->size != image->size || inode->image_end < image->size) {
		*ret = S_ISREG(inode->mode);
		return 0;
	}
	r = delta_extent_get(delta, inode->ino, 0, &e);
	if (r == 0)
		*ret = e.kind != DELTA_NOTHING || e.pages < PINFS_DELTA_FILE_MAX / PINFS_PAGE_SIZE;
	return r;
}
