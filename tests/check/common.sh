# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by every test of this folder. Any command that fails ends the test.
set -euo pipefail
MKFS=$PINFS_BUILD/mkfs.pinfs FSCK=$PINFS_BUILD/fsck.pinfs PINFS=$PINFS_BUILD/pinfs
MNT=$T/mnt
mkdir -p "$MNT"
trap 'echo "failed in line $LINENO: $BASH_COMMAND"' ERR

is_root() { [ "$(id -u)" = 0 ]; }
skip() { echo "$*"; exit 77; }
need_root() { is_root || skip "needs root"; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || [ -x "/sbin/$c" ] || skip "needs $c"; done; }

# Polls until the command succeeds; only a hang ends it, with a failure.
wait_for() {
	local deadline=$((SECONDS + 60))
	until "$@"; do
		[ $SECONDS -lt $deadline ] || { echo "never came true: $*"; return 1; }
		sleep 0.02
	done
}

# Ended; whether its parent has noticed yet is not ours to know.
gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status"; }
# The daemon that serves an image.
daemon_of() { pgrep -f "$PINFS mount .*$1"; }

# Remembers a process of the test, for the runner to end.
started() { echo "$1" >>"$T/.pids"; }

# mount_image IMAGE [OPTIONS]: at $MNT, through the command that users have.
mount_image() { "$PINFS" mount ${2:+-o "$2"} "$1" "$MNT"; }
umount_image() { "$PINFS" umount "$MNT"; }

# Runs a command as an ordinary user, from root; as oneself otherwise. $T/user is a directory of that user.
as_user() {
	if is_root; then
		setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$T/user" "$@"
	else
		"$@"
	fi
}
user_dir() {
	mkdir -p "$T/user"
	! is_root || chown 65534:65534 "$T/user"
}

# The two trees are equal in everything that rsync knows (sockets: it names them, and skips them).
same_tree() {
	local differences
	differences=$(rsync -aHAXn --checksum --delete --itemize-changes "$1/" "$2/" 2>&1 |
		grep -v '^skipping non-regular file' || true)
	[ -z "$differences" ] || { printf 'differ: %s\n' "$differences"; return 1; }
}

# Numbers that depend on nothing: an image's content hash.
content_hash() { "$PINFS" info --json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["content_hash"])'; }

# A tree with some of everything that an ordinary user can make, the same at every call.
make_tree() {
	local dir=$1 i
	mkdir -p "$dir"/{a/b/c,empty,many}
	printf 'hello\n' >"$dir/hello"
	: >"$dir/nothing"
	ln -s hello "$dir/link"
	ln -s /nowhere/at/all "$dir/dangling"
	ln "$dir/hello" "$dir/a/hard"
	mkfifo "$dir/fifo"
	seq 1 200000 >"$dir/a/numbers"
	head -c 300000 /dev/zero >"$dir/a/zeroes"
	truncate -s 3M "$dir/a/b/sparse"
	printf 'island' | dd of="$dir/a/b/sparse" bs=1 seek=1500000 conv=notrunc status=none
	seq 1 3000 | awk 'BEGIN { srand(7) } { for (i = 0; i < 40; i++) printf "%c", int(rand() * 256) }' >"$dir/a/b/c/noise"
	for ((i = 0; i < 100; i++)); do
		echo "file number $i" >"$dir/many/$i"
	done
	cp "$dir/a/numbers" "$dir/a/b/c/numbers again"
	chmod 4751 "$dir/nothing"
	chmod 1777 "$dir/empty"
	setfattr -n user.comment -v 'a comment' "$dir/hello" 2>/dev/null || true
	touch -h -d '2001-02-03 04:05:06.123456789' "$dir/link" "$dir/a/numbers" "$dir/many"
	touch -d '1950-01-02 03:04:05' "$dir/a"
}
# … and what only root can.
make_root_tree() {
	make_tree "$1"
	mknod "$1/char" c 5 1
	mknod "$1/block" b 259 1048575
	cp /bin/true "$1/capable"
	setcap cap_net_raw+ep "$1/capable"
	chown 1234:5678 "$1/many/7" "$1/a/b"
	chown -h 42:43 "$1/dangling"
	setfacl -m u:1000:rwx,g:7:r "$1/many/8"
	setfacl -d -m u:1000:rx "$1/a/b/c"
	setfattr -n trusted.secret -v 0x0001ff "$1/a/numbers"
	python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$1/socket"
	touch -d '2010-10-10 10:10:10.101010101' "$1" "$1/a/b" "$1/a/b/c"
}
