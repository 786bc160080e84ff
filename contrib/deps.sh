#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is missing to build pinfs, and with "test" also what its tests need.
#
#   contrib/deps.sh [-n] build|quickstart|test|fuse...      -n: only say what would be installed
#
# fuse: what a running system has and a bare chroot may not: /dev/fuse open to ordinary users, and /etc/mtab.
#
# Knows apt-get, dnf, pacman and zypper; uses sudo where it is not run as root. What is there already, from whatever
# source, is not installed again. Elsewhere, and without sudo, it says what is needed and fails.
set -euo pipefail

# What is needed, how to see whether it is there, and its package by apt-get, dnf, pacman, zypper.
# A check is a program's name, "pc:" and a pkg-config module, "file:" and a path, or "san:" and one of gcc's sanitizers.
table() {
	cat <<-'END'
	build      gcc               gcc           gcc            gcc         gcc
	build      meson             meson         meson          meson       meson
	build      ninja             ninja-build   ninja-build    ninja       ninja
	build      pkg-config        pkg-config    pkgconf-pkg-config pkgconf pkg-config
	build      file:/usr/include/stdlib.h libc6-dev glibc-devel glibc     glibc-devel
	build      file:/usr/include/linux/fs.h linux-libc-dev kernel-headers linux-api-headers linux-glibc-devel
	build      pc:fuse3          libfuse3-dev  fuse3-devel    fuse3       fuse3-devel
	build      pc:liburing       liburing-dev  liburing-devel liburing    liburing-devel
	build      pc:liblz4         liblz4-dev    lz4-devel      lz4         liblz4-devel
	build      pc:libxxhash      libxxhash-dev xxhash-devel   xxhash      xxhash-devel
	build      pc:libarchive     libarchive-dev libarchive-devel libarchive libarchive-devel
	build      fusermount3       fuse3         fuse3          fuse3       fuse3
	quickstart rsync             rsync         rsync          rsync       rsync
	quickstart python3           python3       python3        python      python3
	test       rsync             rsync         rsync          rsync       rsync
	test       python3           python3       python3        python      python3
	test       pc:cmocka         libcmocka-dev libcmocka-devel cmocka     libcmocka-devel
	test       setfattr          attr          attr           attr        attr
	test       setfacl           acl           acl            acl         acl
	test       setcap            libcap2-bin   libcap         libcap      libcap-progs
	test       setpriv           util-linux    util-linux     util-linux  util-linux
	test       mkfs.ext4         e2fsprogs     e2fsprogs      e2fsprogs   e2fsprogs
	test       make              make          make           make        make
	test       patch             patch         patch          patch       patch
	test       tar               tar           tar            tar         tar
	test       git               git           git-core       git         git-core
	test       sqlite3           sqlite3       sqlite         sqlite      sqlite3
	test       valgrind          valgrind      valgrind       valgrind    valgrind
	test       file:/usr/share/doc/libc6-dbg libc6-dbg - -       -
	test       san:address       gcc           libasan        gcc-libs    libasan8
	test       san:undefined     gcc           libubsan       gcc-libs    libubsan1
	test       san:thread        gcc           libtsan        gcc-libs    libtsan2
	END
}

say() { printf 'deps: %s\n' "$*" >&2; }

there() {
	case $1 in
	pc:*) pkg-config --exists "${1#pc:}" 2>/dev/null ;;
	file:*) [[ -e ${1#file:} ]] ;;
	san:*) gcc "-fsanitize=${1#san:}" -x c -o /dev/null - <<<'int main(void) { return 0; }' 2>/dev/null ;;
	# Tools of the system administrator are not on everybody's path.
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

# Sets missing (checks) and packages, for the groups given and column $manager of the table.
find_missing() {
	local column=$1 group check pkg
	shift
	missing=() packages=()
	while read -r group check apt dnf pacman zypper; do
		[[ " $* " == *" $group "* ]] || continue
		there "$check" && continue
		case $column in
		apt-get) pkg=$apt ;;
		dnf) pkg=$dnf ;;
		pacman) pkg=$pacman ;;
		zypper) pkg=$zypper ;;
		*) pkg=${check##*:} ;;
		esac
		# Not needed with this manager: valgrind of Debian wants the symbols of the C library.
		[[ $pkg != - ]] || continue
		missing+=("${check#*:}")
		[[ " ${packages[*]-} " == *" $pkg "* ]] || packages+=("$pkg")
	done < <(table)
}

as_root() {
	if ((EUID == 0)); then
		"$@"
	else
		sudo -- "$@"
	fi
}

install_packages() {
	case $manager in
	apt-get)
		# The lists of a fresh system are empty or old.
		as_root apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
		;;
	dnf) as_root dnf install -y "$@" ;;
	pacman) as_root pacman -Sy --noconfirm --needed "$@" ;;
	zypper) as_root zypper --non-interactive install --no-recommends "$@" ;;
	esac
}

open_fuse() {
	[[ -e /dev/fuse ]] || as_root modprobe fuse 2>/dev/null || :
	if [[ ! -e /dev/fuse ]]; then
		say "there is no /dev/fuse. As root: modprobe fuse (in a container: start it with --device /dev/fuse)"
		return 1
	fi
	# Bare chroots have none; fusermount3 mounts without it, and then can't unmount.
	if [[ ! -e /etc/mtab ]]; then
		say "there is no /etc/mtab, which fusermount3 reads: ln -s ../proc/self/mounts /etc/mtab"
		as_root ln -sf ../proc/self/mounts /etc/mtab || return 1
	fi
	[[ ! -r /dev/fuse || ! -w /dev/fuse || $(stat -c %a /dev/fuse) != *66 ]] || return 0
	say "/dev/fuse is not open to ordinary users: chmod 666 /dev/fuse"
	as_root chmod 666 /dev/fuse || [[ -r /dev/fuse && -w /dev/fuse ]]
}

main() {
	local dry=false fuse=false groups=() g
	for g; do
		case $g in
		-n | --dry-run) dry=true ;;
		build | quickstart | test) groups+=("$g") ;;
		fuse) fuse=true ;;
		*)
			sed -n '3,11s/^# \{0,1\}//p' "$0"
			[[ $g == -h || $g == --help ]] && exit 0
			exit 2
			;;
		esac
	done
	if $fuse; then
		$dry || open_fuse || exit 1
		((${#groups[@]})) || exit 0
	fi
	((${#groups[@]})) || groups=(build)

	manager=
	for g in apt-get dnf pacman zypper; do
		if command -v "$g" >/dev/null; then
			manager=$g
			break
		fi
	done
	find_missing "$manager" "${groups[@]}"
	if ((${#missing[@]} == 0)); then
		$dry && say "nothing is missing"
		return 0
	fi
	if [[ -z $manager ]]; then
		say "no apt-get, dnf, pacman or zypper here. Please install what provides these, and run this again:"
		say "  ${missing[*]}"
		exit 1
	fi
	if $dry; then
		say "would install with $manager: ${packages[*]}"
		return 0
	fi
	if ((EUID)) && ! command -v sudo >/dev/null; then
		say "these packages are missing, and there is no sudo to install them. As root, please:"
		say "  $manager install ${packages[*]}"
		exit 1
	fi
	say "installing with $manager: ${packages[*]}"
	if ! install_packages "${packages[@]}"; then
		say "$manager failed; needed are: ${packages[*]}"
		exit 1
	fi
	hash -r
	find_missing "$manager" "${groups[@]}"
	if ((${#missing[@]})); then
		say "still missing: ${missing[*]}. Please install what provides them, and run this again."
		exit 1
	fi
}

main "$@"
