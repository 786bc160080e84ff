/* SPDX-License-Identifier: MIT */
/*
 * Who asks. On a mount that can be idmapped the kernel names the user only where something is made, (uid_t)-1 elsewhere;
 * the process it names always (0: it is in no PID namespace of ours). That one waits for the reply, and so is what /proc
 * says it is.
 */
#include "fuse/internal.h"

#include <linux/capability.h>
#include <sys/uio.h>

struct vfs_cred fuse_caller_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct vfs_cred){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

/* The user for files and the effective capabilities. False: not known. */
static bool caller_status(fuse_req_t req, uid_t *ret_uid, uint64_t *ret_caps)
{
	char path[64], line[256];
	unsigned long long caps = 0;
	unsigned uid = 0;
	int found = 0;
	FILE *f;

	if (fuse_req_ctx(req)->pid <= 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)fuse_req_ctx(req)->pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		found += sscanf(line, "Uid: %*u %*u %*u %u", &uid) == 1 || sscanf(line, "CapEff: %llx", &caps) == 1;
	fclose(f);
	if (found != 2)
		return false;
	*ret_uid = uid;
	*ret_caps = caps;
	return true;
}

uid_t fuse_caller_uid(fuse_req_t req)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	uint64_t caps;

	if (uid == (uid_t)-1 && !caller_status(req, &uid, &caps))
		return (uid_t)-1;
	return uid;
}

/* Capabilities in a user namespace of its own are none here: so it must be our root as well. */
static bool has_capability(fuse_req_t req, unsigned capability)
{
	uint64_t caps;
	uid_t uid;

	return caller_status(req, &uid, &caps) && uid == 0 && caps & (1ull << capability);
}

bool fuse_caller_has_fsetid(fuse_req_t req)
{
	return has_capability(req, CAP_FSETID);
}

bool fuse_caller_has_admin(fuse_req_t req)
{
	return has_capability(req, CAP_SYS_ADMIN);
}

int fuse_caller_read(fuse_req_t req, const void *address, void *ret, size_t size)
{
	struct iovec to = {ret, size}, from = {(void *)(uintptr_t)address, size};
	ssize_t n;

	if (fuse_req_ctx(req)->pid <= 0)
		return -ESRCH;
	n = process_vm_readv(fuse_req_ctx(req)->pid, &to, 1, &from, 1, 0);
	return n < 0 ? -errno : (size_t)n == size ? 0 : -EFAULT;
}
