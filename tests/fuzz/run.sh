#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the fuzz targets with clang and runs each for some time, one after another.
#
# usage: run.sh [SECONDS] [TARGET]...     default: 60 seconds, all targets
#
# Environment: BUILD (default: build-fuzz beside the sources), CORPUS (default: BUILD/corpus; it grows and is kept).
# Exit status: 0 no finding; 1 a finding, with the command that replays it on stderr; 2 it could not run.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build-fuzz}
seconds=60
case ${1-} in
-h | --help)
	sed -n '3,8s/^# \{0,1\}//p' "$0"
	exit 0
	;;
*[!0-9]* | '') ;;
*)
	seconds=$1
	shift
	;;
esac
command -v clang >/dev/null || {
	echo "run.sh: clang is needed (Debian: apt install clang)" >&2
	exit 2
}

if [ ! -f "$build/build.ninja" ]; then
	CC=clang meson setup "$build" "$root" -Dfuzz=true -Dbuildtype=debugoptimized \
		-Db_sanitize=address,undefined -Db_lundef=false \
		-Dc_args='-fno-sanitize-recover=all -fno-omit-frame-pointer' >&2 || exit 2
fi
targets=$*
[ -n "$targets" ] || targets=$(cd "$here" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
wanted=mkfs.pinfs
for t in $targets; do
	wanted="$wanted tests/fuzz/fuzz-$t tests/fuzz/replay-$t"
done
# shellcheck disable=SC2086
ninja -C "$build" $wanted >&2 || exit 2

corpus=${CORPUS:-$build/corpus}
mkdir -p "$corpus/made"
ASAN_OPTIONS=detect_leaks=0 "$here/make-corpus.sh" "$build/mkfs.pinfs" "$corpus/made" || exit 2

status=0
for t in $targets; do
	found=$build/findings/$t
	log=$build/fuzz-$t.log
	mkdir -p "$corpus/$t" "$found"
	# A decoder has no reason to ask for more than a block and a few chunks at once.
	ret=0
	case $t in
	delta) seeds="$here/seeds-delta" len=524288 ;;
	*) seeds="$corpus/made $here/seeds" len=262144 ;;
	esac
	# shellcheck disable=SC2086
	ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1 \
		"$build/tests/fuzz/fuzz-$t" -max_total_time="$seconds" -max_len=$len -len_control=0 -timeout=10 \
		-rss_limit_mb=2048 -malloc_limit_mb=128 -print_final_stats=1 -artifact_prefix="$found/" \
		"$corpus/$t" $seeds "$here/crashes/$t" >"$log" 2>&1 || ret=$?
	grep -E '^(#[0-9]+.*DONE|stat::)' "$log" | sed "s/^/$t: /" || :
	if [ $ret -ne 0 ]; then
		status=1
		tail -60 "$log" >&2
		for f in "$found"/*; do
			[ -f "$f" ] && [ "$f" -nt "$corpus/made" ] && echo "replay: $build/tests/fuzz/replay-$t $f" >&2
		done
	fi
done
exit $status
