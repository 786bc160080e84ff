# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: installs what is missing with the distribution's package manager.
#
#   deps_install core          what building, mounting and comparing need
#   deps_install core tests    and what the tests need
#   deps_fuse                  a usable /dev/fuse
#
# Works as root, or with sudo. Where neither is to be had, or the package manager is unknown, it says what it would
# have installed and returns 1.

# One line for each need: what shows that it is there, then the package's name for apt, dnf, pacman, zypper.
#   cmd:NAME  a program;  pc:NAME  a pkg-config module;  opt: in front: the scripts do without it
deps_table() {
	cat <<'TABLE'
core cmd:cc                gcc                  gcc                   gcc           gcc
core cmd:make              libc6-dev            glibc-devel           make          glibc-devel
core cmd:pkg-config        pkg-config           pkgconf-pkg-config    pkgconf       pkg-config
core cmd:meson             meson                meson                 meson         meson
core cmd:ninja             ninja-build          ninja-build           ninja         ninja
core pc:fuse3              libfuse3-dev         fuse3-devel           fuse3         fuse3-devel
core cmd:fusermount3       fuse3                fuse3                 fuse3         fuse3
core pc:liburing           liburing-dev         liburing-devel        liburing      liburing-devel
core pc:liblz4             liblz4-dev           lz4-devel             lz4           liblz4-devel
core pc:libxxhash          libxxhash-dev        xxhash-devel          xxhash        xxhash-devel
core pc:libarchive         libarchive-dev       libarchive-devel      libarchive    libarchive-devel
core cmd:rsync             rsync                rsync                 rsync         rsync
core cmd:file              file                 file                  file          file
tests pc:cmocka            libcmocka-dev        libcmocka-devel       cmocka        libcmocka-devel
tests cmd:python3          python3              python3               python        python3
tests cmd:setfacl          acl                  acl                   acl           acl
tests cmd:setfattr         attr                 attr                  attr          attr
tests cmd:setcap           libcap2-bin          libcap                libcap        libcap-progs
tests cmd:git              git                  git                   git           git
tests cmd:sqlite3          sqlite3              sqlite                sqlite        sqlite3
tests cmd:mkfs.ext4        e2fsprogs            e2fsprogs             e2fsprogs     e2fsprogs
tests cmd:setpriv          util-linux           util-linux            util-linux    util-linux
tests cmd:ps               procps               procps-ng             procps-ng     procps
tests cmd:clang            clang                clang                 clang         clang
tests opt:cmd:valgrind     valgrind             valgrind              valgrind      valgrind
tests opt:libclang_rt      libclang-rt-dev      compiler-rt           compiler-rt   clang
tests lib:libasan          gcc                  libasan               gcc           gcc
tests lib:libubsan         gcc                  libubsan              gcc           gcc
tests lib:libtsan          gcc                  libtsan               gcc           gcc
TABLE
}

deps_have() {
	case $1 in
	opt:*) deps_have "${1#opt:}" ;;
	cmd:make) [ -e /usr/include/stdio.h ] ;; # the C library's headers, whatever they come with
	cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 || [ -x "/usr/sbin/${1#cmd:}" ] || [ -x "/sbin/${1#cmd:}" ] ;;
	pc:*) command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "${1#pc:}" ;;
	lib:*) command -v cc >/dev/null 2>&1 && [ "$(cc -print-file-name="${1#lib:}.so")" != "${1#lib:}.so" ] ;;
	libclang_rt) compgen -G '/usr/lib/clang/*/lib/*/libclang_rt.fuzzer*' >/dev/null ||
		compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer*' >/dev/null ;;
	esac
}

deps_manager() {
	local m
	for m in apt-get dnf pacman zypper; do
		command -v "$m" >/dev/null 2>&1 && { echo "$m"; return; }
	done
	echo none
}

# As root, or through sudo; 1 where neither is possible.
deps_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		echo "$0: needs root for: $*" >&2
		return 1
	fi
}

# Names of the missing packages for column $1 of the table in the groups $2…
deps_missing() {
	local column=$1 group need p1 p2 p3 p4 packages=()
	shift
	while read -r group need p1 p2 p3 p4; do
		case " $* " in *" $group "*) ;; *) continue ;; esac
		deps_have "$need" && continue
		local names=("$p1" "$p2" "$p3" "$p4")
		packages+=("${names[column]}")
	done < <(deps_table)
	[ ${#packages[@]} = 0 ] || printf '%s\n' "${packages[@]}" | sort -u | tr '\n' ' '
}

deps_install() {
	local manager missing
	manager=$(deps_manager)
	case $manager in
	apt-get) missing=$(deps_missing 0 "$@") ;;
	dnf) missing=$(deps_missing 1 "$@") ;;
	pacman) missing=$(deps_missing 2 "$@") ;;
	zypper) missing=$(deps_missing 3 "$@") ;;
	none)
		missing=$(deps_missing 0 "$@")
		[ -z "$missing" ] && return 0
		echo "$0: no package manager that this script knows (apt-get, dnf, pacman, zypper)." >&2
		echo "Install these (Debian's names), then run it again: $missing" >&2
		return 1
		;;
	esac
	[ -z "$missing" ] && return 0
	echo "installing with $manager: $missing"
	# The names are single words from the table above.
	# shellcheck disable=SC2086
	case $manager in
	apt-get)
		deps_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
			deps_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
				$missing >/dev/null
		;;
	dnf) deps_root dnf install -y -q $missing ;;
	pacman) deps_root pacman -Sy --needed --noconfirm $missing >/dev/null ;;
	zypper) deps_root zypper --quiet --non-interactive install $missing ;;
	esac || {
		echo "$0: could not install: $missing" >&2
		return 1
	}
}

deps_fuse() {
	if [ ! -e /dev/fuse ]; then
		deps_root modprobe fuse 2>/dev/null || true
	fi
	if [ ! -e /dev/fuse ]; then
		echo "$0: there is no /dev/fuse: load the module (modprobe fuse), or give it to this container" \
			"(--device /dev/fuse)" >&2
		return 1
	fi
	if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
		# What udev does on a running system; a chroot has no udev.
		echo "/dev/fuse is not open to ordinary users; as udev's rules do: chmod 666 /dev/fuse"
		deps_root chmod 666 /dev/fuse
	fi
}
