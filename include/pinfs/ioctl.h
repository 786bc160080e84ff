/* SPDX-License-Identifier: MIT */
/*
 * The ioctls of a pinfs mount, on its root directory.
 *
 * A writable mount knows some of other filesystems', too: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR and
 * FS_IOC_FSSETXATTR of each file; FITRIM for root; XFS's shutdown, for root and the user who has mounted.
 *
 * A struct begins with its size, as the caller knows it; the daemon fills in what both know and sets size to that.
 * Fields are only ever added at the end.
 */
#ifndef PINFS_IOCTL_H
#define PINFS_IOCTL_H

#include <linux/ioctl.h>
#include <stdint.h>

#define PINFS_IOC_MAGIC 0xb5
#define PINFS_ABI_VERSION 1

/* Which daemon serves this mount, and how. Anybody may ask who may open the directory. */
struct pinfs_ioc_info {
	uint32_t size;	      /* in: sizeof(struct pinfs_ioc_info); out: bytes that are valid */
	uint32_t abi_version; /* PINFS_ABI_VERSION */
	uint32_t pid;	      /* of the daemon, in its own PID namespace; 0 if the caller can't be seen from there */
	uint32_t writable;    /* 0: read-only */
	uint8_t uuid[16];     /* of the image */
	uint64_t image_offset; /* of the image in its file */
	uint64_t cache_limit, cache_used; /* bytes */
	char transport[16];   /* how requests come from the kernel: "dev" */
	char io[32];	      /* how the image is read: "io_uring, O_DIRECT" */
	char version[32];     /* of the daemon */
	char image[4096];     /* absolute path as it was mounted */
};
#define PINFS_IOC_INFO _IOWR(PINFS_IOC_MAGIC, 1, struct pinfs_ioc_info)

/*
 * What it has counted since it was mounted, as text: a line for each counter, its name, a space, a decimal number. Lines may come
 * in any order, and more of them in later versions.
 */
struct pinfs_ioc_stat {
	uint32_t size;	 /* in: sizeof(struct pinfs_ioc_stat); out: bytes that are valid */
	uint32_t length; /* of the text, without the 0 behind it */
	char text[8184];
};
#define PINFS_IOC_STAT _IOWR(PINFS_IOC_MAGIC, 2, struct pinfs_ioc_stat)

/*
 * On an open regular file: a token, with which who sends it to the daemon's socket may map the file as it is open, once, within a
 * minute (protocol.h). For libpinfs. Mounts of this version answer ENOTTY: they don't have the server for it yet.
 */
struct pinfs_ioc_share {
	uint32_t size;	    /* in: sizeof(struct pinfs_ioc_share); out: bytes that are valid */
	uint32_t protocol;  /* PINFS_PROTOCOL_VERSION of the daemon */
	uint8_t token[16];
	char socket[104];   /* the name of an abstract UNIX socket (SOCK_SEQPACKET), without the 0 in front */
};
#define PINFS_IOC_SHARE _IOWR(PINFS_IOC_MAGIC, 3, struct pinfs_ioc_share)

#endif
