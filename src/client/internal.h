/* SPDX-License-Identifier: MIT */
/* What libpinfs has for its tests. */
#ifndef PINFS_CLIENT_INTERNAL_H
#define PINFS_CLIENT_INTERNAL_H

#include "client/connection.h"
#include "pinfs/pinfs.h"

/* As pinfs_map(), of the file that the token stands for; the connection is given back with the map, also on failure. */
int map_by_token(struct connection *connection, const uint8_t token[PINFS_TOKEN_SIZE], uint64_t offset, size_t length, int prot,
	const struct pinfs_map_options *options, struct pinfs_map **ret);

#endif
