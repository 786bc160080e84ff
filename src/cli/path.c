/* SPDX-License-Identifier: MIT */
/* What the commands that look into an image share: paths inside it, and words for people. */
#include "cli/cli.h"

#include "base/log.h"

#define LINKS_MAX 40 /* as the kernel's MAXSYMLINKS */

int cli_usage_error(const char *command)
{
	fprintf(stderr, "Try '%s --help'.\n", command);
	return CLI_USAGE;
}

char *cli_escape(const char *name, size_t len)
{
	size_t size = 4 * len + 8;
	char *buf = malloc(size);

	if (!buf) {
		log_error("out of memory");
		abort();
	}
	return name_escape(name, len, buf, size);
}

const char *cli_strerror(int error)
{
	switch (error < 0 ? -error : error) {
	case EUCLEAN:
		return "damaged; fsck.pinfs tells more";
	case ENOENT:
		return "no such file or directory in the image";
	default:
		return strerror(error < 0 ? -error : error);
	}
}

struct path_walk {
	struct image *image;
	char *rest;	/* what is still to be resolved; owned */
	unsigned links;
	struct image_inode at;
};

/* Puts the target of a link before what is left. */
static int path_walk_link(struct path_walk *w, const struct image_inode *link, const char *after)
{
	char target[PINFS_SYMLINK_MAX + 1];
	size_t len, left = strlen(after);
	char *joined;
	int r;

	if (++w->links > LINKS_MAX)
		return -ELOOP;
	r = image_readlink(w->image, link, target);
	if (r < 0)
		return r;
	len = strlen(target);
	joined = malloc(len + left + 2);
	if (!joined)
		return -ENOMEM;
	memcpy(joined, target, len);
	joined[len] = '/';
	memcpy(joined + len + (left ? 1 : 0), after, left + 1);
	free(w->rest);
	w->rest = joined;
	return target[0] == '/' ? image_inode_get(w->image, PINFS_ROOT_INO, &w->at) : 0;
}

/* One component. Sets *pos to where the rest begins, which may be in another string after a link. */
static int path_walk_step(struct path_walk *w, char **pos, bool follow)
{
	char *name = *pos, *after;
	struct image_inode child;
	struct image_dirent entry;
	size_t len = strcspn(name, "/");
	int r;

	after = name + len;
	*pos = after;
	if (!S_ISDIR(w->at.mode))
		return -ENOTDIR;
	if (len == 1 && name[0] == '.')
		return 0;
	if (len == 2 && name[0] == '.' && name[1] == '.')
		return image_inode_get(w->image, w->at.arg1, &w->at);
	r = image_dir_lookup(w->image, &w->at, name, len, &entry);
	if (r == 0)
		r = image_dir_child(w->image, &w->at, &entry, &child);
	if (r < 0)
		return r;
	if (S_ISLNK(child.mode) && (follow || *after)) {
		r = path_walk_link(w, &child, after);
		*pos = w->rest;
		return r;
	}
	w->at = child;
	return 0;
}

int cli_path_find(struct image *image, const char *path, bool follow, struct image_inode *ret)
{
	struct path_walk w = {.image = image, .rest = strdup(path)};
	char *pos = w.rest;
	int r = w.rest ? image_inode_get(image, PINFS_ROOT_INO, &w.at) : -ENOMEM;

	while (r == 0 && *pos) {
		if (*pos == '/') {
			/* A slash asks for a directory, also at the end. */
			r = S_ISDIR(w.at.mode) ? 0 : -ENOTDIR;
			pos++;
			continue;
		}
		r = path_walk_step(&w, &pos, follow);
	}
	free(w.rest);
	if (r == 0)
		*ret = w.at;
	return r;
}
