# SPDX-License-Identifier: MIT
# bash completion for pinfs: commands, options, images, and paths inside images.

# Options come from the help of each command, so that they can't get out of date.
_pinfs_options()
{
	"$1" help "$2" 2>/dev/null | grep -o -- '--[a-z][a-z-]*=\?' | sort -u
}

# The lines of the help that are about what follows -o: one or several names, two spaces, what they mean.
_pinfs_mount_help()
{
	"$1" help mount 2>/dev/null | sed -n 's/^ \{7\}\([^ ]\)/\1/p'
}

# What may follow -o, up to its "=".
_pinfs_mount_options()
{
	_pinfs_mount_help "$1" | sed 's/^uidmap=.*gidmap=.*/uidmap=, gidmap=/; s/  .*//' | tr ',' '\n' | tr -d ' ' |
		sed -n 's/^\([a-z_]*=\?\).*/\1/p' | grep . | sort -u
}

# What may follow the "=" of the option $2, if it is one of some words.
_pinfs_mount_values()
{
	_pinfs_mount_help "$1" | sed -n "s/^$2=\([a-z|]\+\)  .*/&/p" |
		sed "s/^$2=\([a-z|]*\) .*(default: \([a-z]*\)).*/\1|\2/; s/^$2=\([a-z|]*\) .*/\1/" | tr '|' '\n' | sort -u
}

# Paths in the image $2 that begin with $3.
_pinfs_paths()
{
	local dir=${3%"${3##*/}"} name

	"$1" ls -lN "$2" "${dir:-/}" 2>/dev/null | sed -n 's/^\(.\).* [0-9-]\{10\} [0-9:]\{5\} \(.*\)/\1\2/p' |
		while IFS= read -r name; do
			case $name in
			l*) name=${name#l} name=${name% -> *} ;;
			d*) name=${name#d}/ ;;
			*) name=${name#?} ;;
			esac
			[[ $dir$name == "$3"* ]] && printf '%s\n' "$dir$name"
		done
}

# The words after the command that are neither options nor their values.
_pinfs_operands()
{
	local i word skip=

	operands=()
	for ((i = 2; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $skip ]]; then
			skip=
		elif [[ $word == -[deozbLUj] && ${COMP_WORDS[1]} =~ ^(extract|mount|commit)$ ]]; then
			skip=1
			[[ $word == -d ]] && directory=1
		elif [[ $word != -* ]]; then
			operands+=("$word")
		fi
	done
}

_pinfs()
{
	local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} pinfs=$1 IFS=$'\n' directory='' operands=() want='' before='' option=''

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W $'mount\numount\nstat\nls\ncat\ninfo\nextract\ndiff\ncommit\ndiscard\ndump\nlab\nhelp\n--help\n--version' -- "$cur")
		return
	fi
	if [[ $command == help ]]; then
		mapfile -t COMPREPLY < <(compgen -W $'mount\numount\nstat\nls\ncat\ninfo\nextract\ndiff\ncommit\ndiscard\ndump\nlab' -- "$cur")
		return
	fi
	if [[ $command == mount && ${COMP_WORDS[COMP_CWORD - 1]} == -o ]]; then
		# Several have commas between them.
		[[ $cur == *,* ]] && before=${cur%,*},
		mapfile -t COMPREPLY < <(compgen -P "$before" -W "$(_pinfs_mount_options "$pinfs")" -- "${cur##*,}")
		[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
		return
	fi
	# "=" is a word of its own.
	if [[ $command == mount && $COMP_CWORD -ge 3 ]]; then
		if [[ $cur == = ]]; then
			option=${COMP_WORDS[COMP_CWORD - 1]##*,}
			cur=
		elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
			option=${COMP_WORDS[COMP_CWORD - 2]##*,}
		fi
		case $option in
		log | trace | delta)
			compopt -o filenames
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
			return
			;;
		?*)
			mapfile -t COMPREPLY < <(compgen -W "$(_pinfs_mount_values "$pinfs" "$option")" -- "$cur")
			return
			;;
		esac
	fi
	if [[ $command == commit && ${COMP_WORDS[COMP_CWORD - 1]} == -o ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	fi
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(_pinfs_options "$pinfs" "$command")" -- "$cur")
		[[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
		return
	fi
	_pinfs_operands
	case $command:${#operands[@]} in
	lab:*)
		mapfile -t COMPREPLY < <(compgen -W "$("$pinfs" lab --list 2>/dev/null | sed -n 's/^([a-z]) \([a-z-]*\) .*/\1/p')" -- "$cur")
		;;
	umount:* | stat:*) want=dir ;;
	mount:1) want=dir ;;
	extract:1) [[ $directory ]] && want=path || want=dir ;;
	*:0 | diff:1 | commit:1) want=image ;;
	ls:* | cat:* | extract:* | diff:*) want=path ;;
	esac
	case $want in
	dir)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		;;
	image)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	path)
		compopt -o filenames -o nospace
		mapfile -t COMPREPLY < <(_pinfs_paths "$pinfs" "${operands[0]}" "$cur")
		;;
	esac
}
complete -F _pinfs pinfs
