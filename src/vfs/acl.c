/* SPDX-License-Identifier: MIT */
/*
 * POSIX ACLs in the form that the kernel hands over: a version, then entries of tag, permissions and id, little-endian.
 * acl(5); the rules of inheritance are those of POSIX.1e draft 17, section 23.
 */
#include "vfs/internal.h"

enum {
	ACL_VERSION = 2,
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

struct acl_entry {
	pinfs_le16 tag, perm;
	pinfs_le32 id;
};

static size_t acl_count(size_t size)
{
	return (size - sizeof(pinfs_le32)) / sizeof(struct acl_entry);
}

static struct acl_entry acl_get(const void *acl, size_t i)
{
	struct acl_entry e;

	memcpy(&e, (const uint8_t *)acl + sizeof(pinfs_le32) + i * sizeof(e), sizeof(e));
	return e;
}

static void acl_set_perm(void *acl, size_t i, unsigned perm)
{
	struct acl_entry e = acl_get(acl, i);

	e.perm = pinfs_put16((uint16_t)perm);
	memcpy((uint8_t *)acl + sizeof(pinfs_le32) + i * sizeof(e), &e, sizeof(e));
}

bool acl_valid(const void *acl, size_t size)
{
	unsigned seen = 0, named = 0;
	pinfs_le32 version;

	if (size < sizeof(version) || (size - sizeof(version)) % sizeof(struct acl_entry))
		return false;
	memcpy(&version, acl, sizeof(version));
	if (pinfs_get32(version) != ACL_VERSION)
		return false;
	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry e = acl_get(acl, i);
		unsigned tag = pinfs_get16(e.tag);

		if (pinfs_get16(e.perm) & ~7u)
			return false;
		if (tag == ACL_USER || tag == ACL_GROUP) {
			named++;
			continue;
		}
		if ((tag != ACL_USER_OBJ && tag != ACL_GROUP_OBJ && tag != ACL_MASK && tag != ACL_OTHER) || seen & tag)
			return false;
		seen |= tag;
	}
	return !acl_count(size) ||
		((seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) == (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER) && (!named || seen & ACL_MASK));
}

/* Where the entry that stands for the mode's group bits is: the mask, or the owning group. */
static bool has_mask(const void *acl, size_t size)
{
	for (size_t i = 0; i < acl_count(size); i++)
		if (pinfs_get16(acl_get(acl, i).tag) == ACL_MASK)
			return true;
	return false;
}

bool acl_mode(const void *acl, size_t size, mode_t *mode)
{
	bool mask = has_mask(acl, size), plain = !mask;

	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry e = acl_get(acl, i);
		mode_t perm = pinfs_get16(e.perm);

		switch (pinfs_get16(e.tag)) {
		case ACL_USER_OBJ:
			*mode = (*mode & ~(mode_t)0700) | perm << 6;
			break;
		case ACL_GROUP_OBJ:
			if (!mask)
				*mode = (*mode & ~(mode_t)0070) | perm << 3;
			break;
		case ACL_MASK:
			*mode = (*mode & ~(mode_t)0070) | perm << 3;
			break;
		case ACL_OTHER:
			*mode = (*mode & ~(mode_t)0007) | perm;
			break;
		default:
			plain = false;
		}
	}
	return plain;
}

void acl_chmod(void *acl, size_t size, mode_t mode)
{
	bool mask = has_mask(acl, size);

	for (size_t i = 0; i < acl_count(size); i++) {
		unsigned tag = pinfs_get16(acl_get(acl, i).tag);

		if (tag == ACL_USER_OBJ)
			acl_set_perm(acl, i, mode >> 6 & 7);
		else if (tag == ACL_MASK || (tag == ACL_GROUP_OBJ && !mask))
			acl_set_perm(acl, i, mode >> 3 & 7);
		else if (tag == ACL_OTHER)
			acl_set_perm(acl, i, mode & 7);
	}
}

bool acl_create(void *acl, size_t size, mode_t *mode)
{
	bool mask = has_mask(acl, size);

	/* What the ACL grants and the program asked for: in both. */
	for (size_t i = 0; i < acl_count(size); i++) {
		struct acl_entry e = acl_get(acl, i);
		unsigned perm = pinfs_get16(e.perm), tag = pinfs_get16(e.tag);

		if (tag == ACL_USER_OBJ)
			acl_set_perm(acl, i, perm & (*mode >> 6 & 7));
		else if (tag == ACL_MASK || (tag == ACL_GROUP_OBJ && !mask))
			acl_set_perm(acl, i, perm & (*mode >> 3 & 7));
		else if (tag == ACL_OTHER)
			acl_set_perm(acl, i, perm & (*mode & 7));
	}
	return acl_mode(acl, size, mode);
}
