/* SPDX-License-Identifier: MIT */
/* Requests about names: found, made, removed, forgotten. */
#include "fuse/internal.h"

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	/* An answer, too, and one that the kernel may keep: it makes the names itself. */
	static const struct fuse_entry_param none = {.entry_timeout = FUSE_FOR_EVER};
	struct stat st;
	int r = vfs_lookup(server_of(req)->vfs, parent, name, &st);

	if (r == -ENOENT)
		fuse_reply_entry(req, &none);
	else
		fuse_reply_found(req, r, &st);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	struct fuse_server *s = server_of(req);

	if (s->writable)
		vfs_forget(s->vfs, ino, count);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct fuse_server *s = server_of(req);

	for (size_t i = 0; s->writable && i < count; i++)
		vfs_forget(s->vfs, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PINFS_SYMLINK_MAX + 1];
	struct fuse_server *s = server_of(req);
	int r = vfs_readlink(s->vfs, ino, target);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	if (s->writable)
		vfs_accessed(s->vfs, ino);
	fuse_reply_readlink(req, target);
}

/* A name was made in a directory, for an inode that is known by that. */
static void reply_made(fuse_req_t req, int r, uint64_t parent, const struct stat *st)
{
	int e = settled(req, r, parent);

	if (r == 0 && e < 0)
		vfs_forget(server_of(req)->vfs, st->st_ino, 1);
	fuse_reply_found(req, e, st);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	reply_made(req, vfs_mknod(server_of(req)->vfs, parent, name, mode, rdev, &cred, &st), parent, &st);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	reply_made(req, vfs_mkdir(server_of(req)->vfs, parent, name, mode, &cred, &st), parent, &st);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	reply_made(req, vfs_symlink(server_of(req)->vfs, parent, name, target, &cred, &st), parent, &st);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct stat st;

	reply_made(req, vfs_link(server_of(req)->vfs, ino, parent, name, &st), parent, &st);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_error(req, settled(req, vfs_unlink(server_of(req)->vfs, parent, name), parent));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_error(req, settled(req, vfs_rmdir(server_of(req)->vfs, parent, name), parent));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags)
{
	struct vfs_cred cred = fuse_caller_cred(req);

	int r = vfs_rename(server_of(req)->vfs, parent, name, new_parent, new_name, flags, &cred);

	r = settled(req, r, parent);
	reply_error(req, parent == new_parent ? r : settled(req, r, new_parent));
}
