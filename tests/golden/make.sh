#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes the golden images again:  tests/golden/make.sh MKFS.PINFS DIRECTORY
#
# tiny.img is what include/pinfs/format.md explains byte by byte; rich.img has every kind of thing. Both are stored
# uncompressed, since LZ4's output may change with liblz4's version; small.lz4.img is compressed, and is compared by
# what it decodes to. A change of these files is a change of the format: the specification and the version or a
# feature bit change with them.
#
# changed.img and changed.delta.packed are not made again: an identifier, hashes and times of a delta are never the same. That one was made by
# tests/fuzz/make-delta (kind "both", of changed.img) when its format was version 1; test 327 reads it. A delta of another version joins it, with the
# specification (include/pinfs/delta_format.md) and the number of the version.
set -euo pipefail
mkfs=$(realpath "$1")
out=$(realpath "$2")
work=$(mktemp -d "${TMPDIR:-/var/tmp}/pinfs-golden.XXXXXX")
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=1000000000 LC_ALL=C TZ=UTC
umask 022
cd "$work"

mkdir -p tiny/dir
printf 'Hello, pinfs!\n' >tiny/hello.txt
ln -s hello.txt tiny/link
touch -h -d '@999999999.123456789' tiny/link
touch -d '@999999999.5' tiny/hello.txt
touch -d '@999999998' tiny/dir tiny

mkdir -p rich/{many,deep/er/still,empty}
seq 1 20000 >rich/numbers
cp rich/numbers rich/double
printf 'small' >rich/one
printf 'small' >rich/two
ln rich/one rich/hard
: >rich/nothing
truncate -s 1M rich/hole
truncate -s 100000 rich/sparse
printf 'island' | dd of=rich/sparse bs=1 seek=50000 conv=notrunc status=none
mkfifo rich/fifo
ln -s "$(printf 'long/%.0s' $(seq 1 60))" rich/longlink
for i in $(seq 1 100); do printf '%d\n' "$i" >"rich/many/file-$i"; done
printf 'bottom' >rich/deep/er/still/file
printf '#!/bin/sh\n' >rich/script
chmod 4755 rich/script
chmod 1777 rich/empty
setfattr -n user.comment -v 'a comment' rich/one
setfattr -n user.binary -v 0x000102ff rich/many
printf 'name' >"rich/$(printf '\001\377 odd')"
find rich -depth -exec touch -h -d '@987654321.000000001' {} +
touch -h -d '@-1.25' rich/fifo

options=(-q -f -b 4K --all-root --clamp-mtime -j1)
"$mkfs" "${options[@]}" -z none -L tiny tiny "$out/tiny.img"
"$mkfs" "${options[@]}" -z none --xip=script,numbers -L rich rich "$out/rich.img"
"$mkfs" "${options[@]}" -z lz4 -L small rich "$out/small.lz4.img"
