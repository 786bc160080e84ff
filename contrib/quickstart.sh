#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# See pinfs at work, from nothing: installs what is missing, builds, makes an image of a real tree of this machine,
# mounts it, compares every file, runs programs from it, checks it, and says how large and how fast. Unmounts and
# removes everything again, but for the build in build/.
#
#   contrib/quickstart.sh [BUILD_DIR]
#
# Runs as root or as anybody; an ordinary user needs sudo only if packages are missing.
set -euo pipefail
export LC_ALL=C.UTF-8
unset SOURCE_DATE_EPOCH

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${1:-$here/build}
least=$((300 << 20))

say() { printf '\n== %s\n' "$*"; }
fail() {
	printf 'quickstart: %s\n' "$*" >&2
	exit 1
}

# ---- the end, whatever happens ----

work=
mounted() { [[ -n $work ]] && grep -qF " $work/mnt " /proc/self/mountinfo; }
cleanup() {
	local status=$?
	trap - EXIT
	# The orderly way first, then by force: what is mounted must not stay.
	if mounted; then
		"$build/pinfs" umount "$work/mnt" 2>/dev/null || "$build/pinfs" umount -l "$work/mnt" ||
			fusermount3 -uz "$work/mnt" || umount -l "$work/mnt" || true
	fi
	# What can't be unmounted is not removed either: on the other side are somebody's files.
	if [[ -n $work ]] && ! mounted; then
		rm -rf --one-file-system "$work"
	fi
	exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- measuring ----

now() { date +%s%N; }
# seconds FROM: since then, "1.23 s", or milliseconds where it was short.
seconds() {
	awk -v ns=$(($(now) - $1)) 'BEGIN { printf ns < 1e8 ? "%.1f ms" : "%.2f s", ns < 1e8 ? ns / 1e6 : ns / 1e9 }'
}
rate() { # BYTES FROM
	awk -v b="$1" -v ns=$(($(now) - $2)) 'BEGIN { printf "%.0f MiB/s", b / 1048576 / (ns / 1e9) }'
}
mib() { awk -v b="$1" 'BEGIN { printf "%.1f MiB", b / 1048576 }'; }
percent() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f %%", 100 * a / b }'; }

rows=()
row() { rows+=("$(printf '%-12s %-52s %10s %12s' "$1" "$2" "${3-}" "${4-}")"); }
table() {
	printf '\n%s\n' '-------------------------------------------------------------------------------------------'
	printf '%s\n' "${rows[@]}"
	printf '%s\n' '-------------------------------------------------------------------------------------------'
}

# ---- what it needs ----

say 'What is missing'
"$here/contrib/deps.sh" build quickstart
echo 'nothing'
"$here/contrib/deps.sh" fuse || fail 'without /dev/fuse nothing can be mounted'

say "Building in $build"
if [[ -e $build/build.ninja ]]; then
	meson setup --reconfigure "$build" "$here" --buildtype=release >/dev/null
else
	meson setup "$build" "$here" --buildtype=release -Dtests=false >/dev/null
fi
begin=$(now)
ninja -C "$build" | tail -n 1
row build 'release' "$(seconds "$begin")"
PATH=$build:$PATH

# ---- a real tree ----

say 'Choosing files'
work=$(mktemp -d "${TMPDIR:-/var/tmp}/pinfs-quickstart.XXXXXX")
mkdir "$work/mnt"
: >"$work/exclude"
sources=()
bytes=0
# Headers, programs, the libraries that they need; then until there is enough of it.
libs=/usr/lib/$(gcc -print-multiarch 2>/dev/null || true)
for dir in /usr/include /usr/bin "${libs%/}" /usr/lib64 /usr/lib/gcc /usr/share /usr/lib /usr/libexec /usr/src; do
	((bytes < least)) || [[ $dir == /usr/bin || $dir == /usr/lib64 || $dir == "${libs%/}" ]] || continue
	[[ -d $dir && ! -L $dir ]] || continue
	# Nothing twice, and no name twice: each source becomes one entry of the image's root.
	for s in ${sources[@]+"${sources[@]}"}; do
		[[ $s != "$dir"/* && $dir != "$s"/* && ${s##*/} != "${dir##*/}" ]] || continue 2
	done
	# What only root may read stays out, on both sides of the comparison.
	find "$dir" -xdev \( -type f -o -type d \) ! -readable -printf '/%P\n' -prune >"$work/exclude.${dir##*/}"
	sed "s|^|/${dir##*/}|" "$work/exclude.${dir##*/}" >>"$work/exclude"
	bytes=$((bytes + $(find "$dir" -xdev -type f -readable -printf '%s\n' | awk '{ n += $1 } END { printf "%d", n }')))
	sources+=("$dir")
done
((bytes >= least)) || fail "only $(mib $bytes) of readable files under /usr; at least $(mib $least) are needed"
files=$(find "${sources[@]}" -xdev -type f -readable | wc -l)
printf '%s: %d files, %s\n' "${sources[*]}" "$files" "$(mib "$bytes")"
row tree "${sources[*]##*/}: $files files" '' "$(mib "$bytes")"

free=$(($(stat -f -c '%a * %S' "$work")))
((free > bytes)) || fail "not enough room in $work: $(mib $free) free, $(mib $bytes) wanted (set TMPDIR)"

say 'Making an image: mkfs.pinfs'
begin=$(now)
mkfs.pinfs -x --exclude-from="$work/exclude" "${sources[@]}" "$work/usr.pinfs"
time=$(seconds "$begin")
speed=$(rate "$bytes" "$begin")
size=$(stat -c %s "$work/usr.pinfs")
row image "lz4, $(percent "$size" "$bytes") of the tree, made at $speed" "$time" "$(mib "$size")"

say 'Mounting it: pinfs mount'
begin=$(now)
pinfs mount "$work/usr.pinfs" "$work/mnt"
row mount '' "$(seconds "$begin")"
mounted || fail 'pinfs mount said that all is well, but nothing is mounted'
grep -F " $work/mnt " /proc/self/mountinfo | sed 's/.* - //'

say 'Comparing every file, byte by byte and with all attributes: rsync --checksum'
begin=$(now)
differences=0
for dir in "${sources[@]}"; do
	# -X wants the right to read all of them; an ordinary user has user.* only. Sockets can't be compared by rsync.
	rsync -aHAXn -x --checksum --delete --itemize-changes --no-devices --no-specials \
		--exclude-from="$work/exclude.${dir##*/}" "$dir/" "$work/mnt/${dir##*/}/" \
		>"$work/differences"
	if [[ -s $work/differences ]]; then
		head -n 20 "$work/differences"
		differences=$((differences + $(wc -l <"$work/differences")))
	fi
done
((differences == 0)) || fail "$differences differences between the tree and the mounted image"
row compare "all $files files are the same" "$(seconds "$begin")"
echo 'no difference'

say 'Reading everything once more, from the image alone: tar'
begin=$(now)
tar -C "$work/mnt" -cf - . | wc -c >"$work/read"
row read "every file through the mount, at $(rate "$bytes" "$begin")" "$(seconds "$begin")"
cat "$work/read"

say 'Running programs from it'
begin=$(now)
ran=0
loader=$(compgen -G "$work/mnt/*/ld-linux-*.so.*" | head -n 1 || true)
run() { # PROGRAM ARGUMENTS...: with the libraries of the mount, too, if the tree has them
	local program
	program=$(readlink -f "$work/mnt/bin/$1")
	[[ $program == "$work/mnt/"* && -x $program ]] || return 0
	printf '%-8s' "$1:"
	if [[ -n $loader && $(head -c 4 "$program" | tail -c 3) == ELF ]]; then
		"$loader" --library-path "${loader%/*}" "$program" "${@:2}" >"$work/said" 2>&1 || fail "$1 failed: $(cat "$work/said")"
	else
		"$program" "${@:2}" >"$work/said" 2>&1 || fail "$1 failed: $(cat "$work/said")"
	fi
	head -n 1 "$work/said"
	ran=$((ran + 1))
}
run ls -d "$work/mnt"
run sed --version
run perl -e 'print "perl $^V\n"'
run python3 --version
run gcc --version
run git --version
run sha256sum "$work/mnt/bin/env"
((ran)) || fail 'there is no program to run in the image'
row programs "$ran ran from the mount${loader:+ with its libraries}" "$(seconds "$begin")"

say 'Unmounting: pinfs umount'
begin=$(now)
pinfs umount "$work/mnt"
row umount '' "$(seconds "$begin")"
mounted && fail 'it is still mounted'

say 'Checking every byte of the image: fsck.pinfs'
begin=$(now)
fsck.pinfs -n "$work/usr.pinfs"
row fsck 'sound' "$(seconds "$begin")"

say 'Changing it: pinfs mount -o rw'
begin=$(now)
# What belongs to root is root's in the image, too, unless it is shown as somebody else's.
options=rw
((EUID == 0)) || options+=,uid=$EUID,gid=$(id -g)
pinfs mount -o "$options" "$work/usr.pinfs" "$work/mnt"
cp -r "$here/src" "$here/tests" "$work/mnt/"
rm -rf "$work/mnt/bin"
changed=$(find "$here/src" "$here/tests" -type f | wc -l)
# As syncfs(2), which the kernel doesn't hand on.
sync "$work/mnt"
for dir in src tests; do
	diff -r "$here/$dir" "$work/mnt/$dir" || fail 'what was written there is not what is read'
done
pinfs umount "$work/mnt"
size=$(du -k "$work/usr.pinfs.delta" | awk '{ print $1 * 1024 }')
row change "$changed files added, a directory removed; in the delta" "$(seconds "$begin")" "$(mib "$size")"
fsck.pinfs -n "$work/usr.pinfs" "$work/usr.pinfs.delta"

say 'A new image of both: pinfs commit'
begin=$(now)
pinfs commit "$work/usr.pinfs" -o "$work/new.pinfs"
row commit 'what did not change was copied as it is' "$(seconds "$begin")" "$(mib "$(stat -c %s "$work/new.pinfs")")"
fsck.pinfs -n "$work/new.pinfs"
pinfs mount "$work/new.pinfs" "$work/mnt"
if [[ -e $work/mnt/bin ]] || ! diff -r "$here/src" "$work/mnt/src"; then
	fail 'the new image is not what the two were'
fi
pinfs umount "$work/mnt"

table
printf '\nAll is well. Now yours:\n  %s DIRECTORY IMAGE\n  %s IMAGE MOUNTPOINT\n  %s MOUNTPOINT\n' \
	"$build/mkfs.pinfs" "$build/pinfs mount" "$build/pinfs umount"
