#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sets up a machine and runs the tests: everything that needs no more than 20 minutes, on real mounts.
#
#   contrib/test.sh [--quick]      --quick: no sanitizers, no fuzzing
#
# As root (everything), or as an ordinary user with sudo for the packages (what needs root is skipped and counted).
# The last line is "N passed, N failed, N skipped"; the exit status is 0 only if nothing failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

quick=
[ "${1:-}" = --quick ] && quick=1
passed=0 failed=0 skipped=0
logs=$(mktemp -d "${TMPDIR:-/var/tmp}/pinfs-test.XXXXXX")
trap 'rm -rf "$logs"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

count() {
	passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0})) skipped=$((skipped + ${3:-0}))
}
finish() {
	echo
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
	exit
}
setup_failed() {
	echo "test.sh: $*" >&2
	count 0 1
	finish
}
step() { printf '\n== %s\n' "$*"; }

# The newest settings apply also to a build directory that an earlier run has left.
configure() {
	local dir=$1
	shift
	if [ -e "$dir/build.ninja" ]; then
		meson configure "$dir" "$@" >/dev/null
	else
		meson setup "$dir" --werror "$@" >"$logs/setup" 2>&1 || { cat "$logs/setup" >&2; return 1; }
	fi
}

# meson test in directory $1 with more arguments; counts meson's tests, shows cmocka's lines.
run_meson() {
	local dir=$1 ok fail skip timeout log status=0
	shift
	log=$dir/meson-logs/testlog.txt
	rm -f "$log"
	meson test -C "$dir" --no-rebuild --print-errorlogs "$@" 2>&1 | tee "$logs/meson" || status=1
	[ -e "$log" ] && grep -hE '^\[ +(PASSED|FAILED|SKIPPED) +\]' "$log"
	ok=$(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$logs/meson")
	fail=$(sed -n 's/^Fail: *\([0-9]*\).*/\1/p' "$logs/meson")
	skip=$(sed -n 's/^Skipped: *\([0-9]*\).*/\1/p' "$logs/meson")
	timeout=$(sed -n 's/^Timeout: *\([0-9]*\).*/\1/p' "$logs/meson")
	fail=$((${fail:-0} + ${timeout:-0}))
	[ $status = 0 ] || [ "$fail" -gt 0 ] || fail=1
	[ -n "$ok" ] || fail=1
	count "${ok:-0}" "$fail" "${skip:-0}"
}

# What the explorer has seen, from meson's log: all scenarios on the real rules, and each design that must not hold.
show_explored() {
	[ -e "$1" ] && awk '
		/^test: / { rules = /explore (twos|threes|failures|units|processes)/ }
		/ scenarios, [0-9]+ failed: / && rules {
			n += $1; schedules += $5; states += $7; violations += $12
		}
		/ caught: / {
			name = $1
			sub(/.* caught: /, "caught: ")
			printf "(%c) %-22s %s\n", 97 + designs++, name, $0
		}
		END {
			if (n)
				printf "explored: %.0f scenarios, %.0f schedules, %.0f distinct states, %.0f violations\n", n, schedules, states, violations
		}' "$1"
}

build_and_test() {
	local dir=$1 name=$2
	shift 2
	step "$name"
	local suites=()
	while [ "${1:-}" = --suite ]; do
		suites+=(--suite "$2")
		shift 2
	done
	if configure "$dir" -Dtests=true "$@" && ninja -C "$dir" >"$logs/ninja" 2>&1; then
		run_meson "$dir" "${suites[@]}"
	else
		tail -n 40 "$logs/ninja" >&2
		count 0 1
		echo "$name: does not build; replay: ninja -C $dir"
	fi
}

# Other random tests each time.
export PINFS_SEED=${PINFS_SEED:-$RANDOM}
echo "seed: to repeat the same random tests, set PINFS_SEED=$PINFS_SEED"
step "what is needed"
contrib/deps.sh build test || setup_failed "packages are missing"
contrib/deps.sh fuse || setup_failed "no usable /dev/fuse: the tests on mounts could not run"
echo "all is there"

build_and_test build-test "build with warnings as errors, layers, unit tests"
step "what the explorer has seen"
show_explored build-test/meson-logs/testlog.txt
step "power cuts"
grep -h '^workloads ' build-test/meson-logs/testlog.txt || true

# The numbered tests with arguments $2…; $1 says which they are.
run_check() {
	local figures=$logs/check jobs
	jobs=$(nproc)
	step "tests on real mounts: $1"
	shift
	rm -f "$figures"
	tests/check/check -b build-test -j "$((jobs < 8 ? jobs : 8))" -s "$figures" "$@" || true
	if [ -s "$figures" ]; then
		# {"passed": N, "failed": N, "skipped": N}; that nothing could be mounted is a failure there.
		figure() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$figures"; }
		count "$(figure passed)" "$(figure failed)" "$(figure skipped)"
	else
		echo "test.sh: tests/check/check did not finish"
		count 0 1
	fi
}

run_check "read-only, tools" -x rw
if [ "$(id -u)" = 0 ]; then
	run_check "writable, as root" -r -g rw
	# As an ordinary user what depends on that; all of it: tests/check/check -u -g rw
	run_check "writable, as an ordinary user" -u -g create,perms,xattr,acl,link,time,lock,crash
else
	run_check "writable" -g rw
fi

if [ -z "$quick" ]; then
	build_and_test build-asan "unit tests under ASan and UBSan" --suite unit --suite sanitized --suite mutate --suite fuzz \
		-Db_sanitize=address,undefined -Db_lundef=false
	build_and_test build-tsan "unit tests under TSan" --suite threads -Db_sanitize=thread -Db_lundef=false
	step "fuzzing for a minute"
	if command -v clang >/dev/null 2>&1; then
		if tests/fuzz/run.sh 60 >"$logs/fuzz" 2>&1; then
			tail -n 5 "$logs/fuzz"
			count 1
		else
			cat "$logs/fuzz"
			count 0 1
		fi
	else
		echo "skipped: no clang"
		count 0 0 1
	fi
fi
finish
