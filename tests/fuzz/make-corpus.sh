#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes small images with every feature of the format: seeds for the fuzzers, and input for tests/mutate.
#
# usage: make-corpus.sh MKFS_PINFS OUTPUT_DIRECTORY
#
# As root it also makes devices and trusted attributes; what this machine refuses is left out, and said.
set -eu

if [ $# -ne 2 ]; then
	sed -n '3,7s/^# \{0,1\}//p' "$0" >&2
	exit 2
fi
mkfs=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
export SOURCE_DATE_EPOCH=1700000000

skip() {
	echo "make-corpus: left out here: $*" >&2
}

# image NAME TREE [OPTION]...
image() {
	name=$1 tree=$2
	shift 2
	find "$work/$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	"$mkfs" -q -f -j1 --all-root "$@" "$work/$tree" "$out/$name.pinfs"
}

letters() { # NUMBER LENGTH
	awk -v n="$1" -v len="$2" 'BEGIN { while (length(s) < len) s = s sprintf("%d line of text, ", n++); print substr(s, 1, len) }'
}

# Each kind of inode, packed files, hard links.
kinds() {
	t=$work/kinds
	mkdir -p "$t/dir/sub" "$t/empty-dir"
	: >"$t/empty"
	letters 1 100 >"$t/small"
	letters 2 3000 >"$t/dir/packed"
	letters 3 9000 >"$t/dir/blocks"
	head -c 5000 /dev/zero >"$t/zeros"
	ln "$t/small" "$t/dir/hard"
	ln -s small "$t/link"
	ln -s "$(letters 4 300 | tr -d ' \n')" "$t/dir/long-link"
	mkfifo "$t/fifo"
	mknod "$t/char" c 1 3 2>/dev/null || skip "devices"
	mknod "$t/block" b 259 1048575 2>/dev/null || :
	python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$t/socket" 2>/dev/null ||
		skip "sockets (python3)"
	printf x >"$t/$(printf 'odd \377\n\t name')"
}

attributes() {
	t=$work/attributes
	mkdir -p "$t/dir"
	for f in a b c dir; do
		[ -d "$t/$f" ] || letters 5 50 >"$t/$f"
		setfattr -n user.same -v value "$t/$f" 2>/dev/null || skip "extended attributes"
	done
	setfattr -n user.long -v "$(letters 6 2000)" "$t/a" 2>/dev/null || :
	setfattr -n user.empty "$t/a" 2>/dev/null || :
	setfattr -n trusted.overlay.opaque -v y "$t/dir" 2>/dev/null || skip "trusted attributes"
	setcap cap_net_raw+ep "$t/b" 2>/dev/null || skip "capabilities"
	setfacl -m u:1234:rw,g:99:r "$t/c" 2>/dev/null || skip "ACLs"
	setfacl -d -m u:1234:rwx "$t/dir" 2>/dev/null || :
}

# More than one group of entries, names of 255 bytes, depth.
names() {
	t=$work/names
	mkdir -p "$t/wide" "$t/long"
	i=0
	while [ $i -lt 150 ]; do
		: >"$t/wide/file-$i"
		i=$((i + 1))
	done
	for c in a b c; do
		: >"$t/long/$(letters 7 254 | tr -c 'a-z' "$c" | head -c 254)$c"
	done
	d=$t
	i=0
	while [ $i -lt 40 ]; do
		d=$d/d
		i=$((i + 1))
	done
	mkdir -p "$d"
	: >"$d/bottom"
}

# Two chunks of inodes and two of names.
many() {
	t=$work/many
	mkdir -p "$t"
	(cd "$t" && i=0 && while [ $i -lt 700 ]; do
		echo "a-rather-long-name-that-fills-the-chunk-of-names-sooner-$i"
		i=$((i + 1))
	done | xargs touch)
}

# Holes at the beginning, in the middle and at the end; nothing but a hole; equal blocks.
sparse() {
	t=$work/sparse
	mkdir -p "$t"
	python3 - "$t" <<'PYTHON' || skip "sparse files (python3)"
import os, sys
def make(name, size, *pieces):
    with open(os.path.join(sys.argv[1], name), 'wb') as f:
        f.truncate(size)
        for offset, data in pieces:
            f.seek(offset)
            f.write(data)
a, b = b'alpha' * 900, b'beta!' * 900
make('middle', 60000, (0, a), (40000, b))
make('begin', 60000, (50000, a))
make('comb', 200000, *[(k * 16384, (a if k % 2 else b)[:4096]) for k in range(12)])
make('hole', 1 << 43)
make('far', (1 << 43) + 5000, ((1 << 43), a))
make('again', 20000, (0, a[:4096]), (4096, b[:4096]), (8192, a[:4096]), (12288, a[:4096]))
PYTHON
}

executable() {
	t=$work/executable
	mkdir -p "$t"
	letters 9 5000 >"$t/program"
	letters 10 4096 | head -c 4096 >"$t/page"
	letters 8 200 >"$t/text"
	chmod 755 "$t/program"
}

kinds
attributes
names
many
sparse
executable
mkdir -p "$work/empty"
image kinds kinds -b 4K
image kinds-uncompressed kinds -b 4K -z none
image kinds-large-blocks kinds -b 128K -z lz4hc,12
image attributes attributes -b 4K -L label
image names names -b 4K
image many many -b 64K
image sparse sparse -b 4K
image sparse-no-dedup sparse -b 16K --no-dedup --no-pack
image xip executable -b 4K --xip=all
image xip-large-blocks executable -b 16K --xip=program
image empty empty
# More chunks than the target's cache of chunks has room for.
"$mkfs" -q -f -j1 --all-root -b 4K --xip=program "$work/kinds" "$work/attributes" "$work/names" "$work/many" "$work/sparse" \
	"$work/executable" "$out/everything.pinfs"
printf '#!/bin/sh\nexit 0\n' >"$work/runtime"
image prepended executable -b 4K --prepend="$work/runtime"
