/* SPDX-License-Identifier: MIT */
/*
 * Linked into an mkfs.pinfs of its own with --wrap=codec_hash128: a hash of two values, so that nearly all content
 * seems to equal some other. The image must be right all the same, since no double is taken for one unverified.
 */
#include "codec/codec.h"

struct codec_hash128 __wrap_codec_hash128(const void *data, size_t len);

struct codec_hash128 __wrap_codec_hash128(const void *data, size_t len)
{
	return (struct codec_hash128){.low = len % 2, .high = 4711};
}
