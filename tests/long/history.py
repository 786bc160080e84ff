# SPDX-License-Identifier: MIT
"""A history for git fast-import: the text files of some directories, and commits that change them; the same each time.

usage: history.py COMMITS DIR...
"""
import os
import random
import sys


def main():
    r = random.Random(1)
    out = sys.stdout.buffer
    files, names = {}, []
    for top in sys.argv[2:]:
        for d, dirs, found in os.walk(top):
            dirs.sort()
            for n in sorted(found):
                path = os.path.join(d, n)
                if len(files) < 6000 and os.path.isfile(path) and not os.path.islink(path) and path.isascii() and ' ' not in path:
                    with open(path, 'rb') as f:
                        files[path.lstrip('/')] = f.read()
    names = list(files)
    for n in range(int(sys.argv[1])):
        changed = names if n == 0 else r.sample(names, min(len(names), r.randrange(1, 40)))
        text = b'commit %d' % n
        out.write(b'commit refs/heads/main\nmark :%d\ncommitter a <a@b> %d +0000\ndata %d\n%s\n' % (n + 1, 1600000000 + n * 60, len(text), text))
        if n:
            out.write(b'from :%d\n' % n)
        for name in changed:
            if n:
                lines = files[name].split(b'\n')
                lines.insert(r.randrange(len(lines) + 1), b'/* commit %d */' % n)
                files[name] = b'\n'.join(lines)
            out.write(b'M 100644 inline %s\ndata %d\n' % (name.encode(), len(files[name])))
            out.write(files[name] + b'\n')


main()
