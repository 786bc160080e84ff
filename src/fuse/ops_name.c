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
	int r = vfs_readlink(server_of(req)->vfs, ino, target);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_readlink(req, target);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	fuse_reply_found(req, vfs_mknod(server_of(req)->vfs, parent, name, mode, rdev, &cred, &st), &st);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	fuse_reply_found(req, vfs_mkdir(server_of(req)->vfs, parent, name, mode, &cred, &st), &st);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct vfs_cred cred = fuse_caller_cred(req);
	struct stat st;

	fuse_reply_found(req, vfs_symlink(server_of(req)->vfs, parent, name, target, &cred, &st), &st);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct stat st;

	fuse_reply_found(req, vfs_link(server_of(req)->vfs, ino, parent, name, &st), &st);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_error(req, vfs_unlink(server_of(req)->vfs, parent, name));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_error(req, vfs_rmdir(server_of(req)->vfs, parent, name));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags)
{
	struct vfs_cred cred = fuse_caller_cred(req);

	reply_error(req, vfs_rename(server_of(req)->vfs, parent, name, new_parent, new_name, flags, &cred));
}
