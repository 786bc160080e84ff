# SPDX-License-Identifier: MIT
"""A tree that rsync can keep, and random changes of it.

usage: trees.py make DIR; trees.py change DIR SEED
"""
import os
import random
import sys

NAMES = ('alpha', 'beta with blanks', 'gamma\u00fc', 'delta', 'x' * 200)


def content(r):
    kind = r.randrange(5)
    if kind == 0:
        return b''
    if kind == 1:
        return r.randbytes(r.randrange(1, 5000))
    if kind == 2:
        return b''.join(b'line %d of a text\n' % r.randrange(100) for _ in range(r.randrange(2000)))
    if kind == 3:
        return r.randbytes(4096) * r.randrange(1, 60) + r.randbytes(r.randrange(4096))
    return bytes(r.randrange(1, 300000)) + r.randbytes(100)


def put(r, path, data):
    with open(path, 'wb') as f:
        if r.randrange(3) == 0:
            f.truncate(r.randrange(1, 1000000))
            f.seek(r.randrange(0, 300000))
        f.write(data)


def writable_if_linked(path):
    # Of an ordinary user rsync makes what it removes writable first, and so all other names of it, when those have been looked at.
    st = os.stat(path)
    if os.geteuid() and st.st_nlink > 1:
        os.chmod(path, st.st_mode & 0o7777 | 0o200)


def attributes(r, path):
    # Its owner may set attributes only while he may write.
    os.chmod(path, 0o644)
    for n in range(r.randrange(3)):
        os.setxattr(path, f'user.test{n}', r.randbytes(r.randrange(1, 1000)))
    os.chmod(path, r.choice((0o644, 0o600, 0o755, 0o664, 0o444)))
    writable_if_linked(path)
    os.utime(path, ns=(r.randrange(10 ** 18), r.randrange(10 ** 18)))
    if os.geteuid() == 0 and r.randrange(4) == 0:
        os.chown(path, r.randrange(1000), r.randrange(1000))


def make(top, seed=1):
    r = random.Random(seed)
    for i in range(20):
        d = os.path.join(top, f'{r.choice(NAMES)} {i}', *r.choices(NAMES[:4], k=r.randrange(3)))
        os.makedirs(d, exist_ok=True)
        for n in range(r.randrange(30)):
            path = os.path.join(d, f'{n}.{r.choice(NAMES)}')
            put(r, path, content(r))
            attributes(r, path)
            if r.randrange(8) == 0:
                os.link(path, os.path.join(top, f'link {i} {n}'))
                writable_if_linked(path)
            if r.randrange(8) == 0:
                os.symlink(r.choice(NAMES) * r.randrange(1, 5), path + '.symlink')
    with open(os.path.join(top, 'large'), 'wb') as f:
        for n in range(100):
            f.seek(n * 100000)
            f.write(r.randbytes(65536) if n % 3 else b'text that repeats ' * 3000)


def change(top, seed):
    """Everything that may happen to files between two runs of rsync."""
    r = random.Random(seed)
    files = sorted(os.path.join(d, f) for d, _, names in os.walk(top) for f in names)
    files = [f for f in files if not os.path.islink(f)]
    r.shuffle(files)
    for path in files[:100]:
        kind = r.randrange(9)
        if kind == 0:
            os.unlink(path)
            continue
        if kind == 1:
            os.rename(path, path[:-1] + r.choice('abc'))
            continue
        os.chmod(path, 0o644)
        size = os.stat(path).st_size
        with open(path, 'r+b') as f:
            if kind == 2:
                f.seek(0, os.SEEK_END)
                f.write(content(r))
            elif kind == 3:
                f.truncate(r.randrange(size + 1))
            elif kind == 4:
                f.truncate(size + r.randrange(1000000))
            elif kind in (5, 6):
                for _ in range(r.randrange(1, 20)):
                    f.seek(r.randrange(size + 1))
                    f.write(r.randbytes(r.randrange(1, 9000)))
            elif kind == 7:
                old = f.read()
                f.seek(0)
                f.write(r.randbytes(r.randrange(1, 9000)) + old)
        attributes(r, path)
    more = os.path.join(top, f'more {seed % 5}')
    if seed % 7 == 0 and not os.path.exists(more):
        make(more, seed)
    # Removed, renamed, or not to be written any more: it may be one of those above.
    large = os.path.join(top, 'large')
    if os.path.exists(large):
        os.chmod(large, 0o644)
    with open(large, 'r+b' if os.path.exists(large) else 'wb') as f:
        for _ in range(20):
            f.seek(r.randrange(10000000))
            f.write(r.randbytes(r.randrange(1, 100000)))


if __name__ == '__main__':
    if sys.argv[1] == 'make':
        make(sys.argv[2])
    else:
        change(sys.argv[2], int(sys.argv[3]))
