#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Gives mkfs.pinfs --tar archives that were made to harm, and damaged ones.

usage: tars.py [--build=DIRECTORY] [--count=N] [--seed=S] [--only=CASE]

Whatever the archive is: mkfs.pinfs ends by itself with 0, 1 or 2, leaves no half image behind, and an image that it made
is sound for fsck.pinfs, can be read completely, and shows nothing of this machine's files. Exit status: 0 all cases
held; 1 some did not; 2 it could not run.
"""
import argparse
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile

SECRET = b'not for the image: 6d1f0c2e'


def entry(name, kind=tarfile.REGTYPE, data=b'', **fields):
    t = tarfile.TarInfo(name)
    t.type, t.size, t.mtime = kind, len(data), 1_000_000_000
    for key, value in fields.items():
        setattr(t, key, value)
    return t, data


def tar(*entries, fmt=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=fmt, encoding='utf-8', errors='surrogateescape') as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw_entry(name, size_field, data=b'', kind=b'0', mode=b'0000644\0'):
    """A ustar header with fields of one's own."""
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:108], h[108:116], h[116:124] = mode, b'0000000\0', b'0000000\0'
    h[124:136], h[136:148], h[156:157] = size_field, b'07346545000\0', kind
    h[257:265] = b'ustar\00000'
    h[148:156] = b' ' * 8
    h[148:156] = b'%06o\0 ' % sum(h)
    return bytes(h) + data + bytes(-len(data) % 512)


def base256(n):
    return (n & ((1 << 96) - 1) | 1 << 95).to_bytes(12, 'big')


def sparse(size, pieces):
    """GNU's sparse format 1.0: the map stands in front of the data."""
    text = b'%d\n' % len(pieces) + b''.join(b'%d\n%d\n' % (at, len(d)) for at, d in pieces)
    data = text + bytes(-len(text) % 512) + b''.join(d for _, d in pieces)
    return entry('sparse', data=data, pax_headers={
        'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'sparse',
        'GNU.sparse.realsize': str(size)})


def cases(secret):
    file, directory, link, hard = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    a = entry('a', file, b'first')
    deep = '/'.join(['d'] * 3000)
    # name: (archive, exit status, facts that must be there)
    yield 'dotdot', tar(entry('../x', file, b'x')), (1,), {}
    yield 'dotdot inside', tar(entry('a/../../x', file, b'x')), (1,), {}
    yield 'dotdot at the end', tar(entry('a/..', directory)), (1,), {}
    yield 'absolute', tar(entry('/etc/x', file, b'x')), (0,), {'/etc/x': 'size 1'}
    yield 'odd slashes', tar(entry('.//a/./b//c', file, b'x'), entry('./a/b/c', file, b'xy')), (0,), {'/a/b/c': 'size 2'}
    yield 'root attributes', tar(entry('./', directory, mode=0o700)), (0,), {'/': 'mode 40700'}
    yield 'hard link to nothing', tar(entry('h', hard, linkname='a')), (1,), {}
    yield 'hard link to itself', tar(entry('h', hard, linkname='h')), (1,), {}
    yield 'hard link outside', tar(entry('h', hard, linkname='../../etc/passwd')), (1,), {}
    yield 'hard link to a directory', tar(entry('d', directory), entry('h', hard, linkname='d')), (1,), {}
    yield 'hard link', tar(a, entry('h', hard, linkname='./a')), (0,), {'/h': 'nlink 2'}
    yield 'hard link over its target', tar(a, entry('a', hard, linkname='a')), (0,), {'/a': 'nlink 1'}
    yield 'directory then file', tar(entry('a', directory), a), (1,), {}
    yield 'file then directory', tar(a, entry('a', directory)), (0,), {'/a': 'mode 40644'}
    yield 'file as directory', tar(a, entry('a/b', file, b'x')), (1,), {}
    yield 'through a symbolic link', tar(entry('a', link, linkname='/etc'), entry('a/b', file, b'x')), (1,), {}
    yield 'twice', tar(a, entry('a', file, b'the second')), (0,), {'/a': 'size 10'}
    yield 'linked, then replaced', tar(a, entry('h', hard, linkname='a'), entry('a', file, b'xy')), (0,), {
        '/a': 'nlink 1 size 2', '/h': 'nlink 1 size 5'}
    yield 'name of 255 bytes', tar(entry('n' * 255, file)), (0,), {'/' + 'n' * 255: 'size 0'}
    yield 'name of 256 bytes', tar(entry('n' * 256, file)), (1,), {}
    yield 'depth of 3000', tar(entry(deep + '/f', file, b'x')), (0,), {'/' + deep + '/f': 'size 1'}
    yield 'target of 4095 bytes', tar(entry('l', link, linkname='t' * 4095)), (0,), {'/l': 'size 4095'}
    yield 'target of 4096 bytes', tar(entry('l', link, linkname='t' * 4096)), (1,), {}
    yield 'no target', tar(entry('l', link)), (1,), {}
    yield 'not UTF-8', tar(entry('\udcff\udcfe', file, b'x'), fmt=tarfile.GNU_FORMAT), (0,), {'/\\377\\376': 'size 1'}
    yield 'UTF-8 in pax', tar(entry('gr\u00fc\u00dfe \u65e5', file, b'x')), (0,), {'/gr\u00fc\u00dfe \u65e5': 'size 1'}
    yield 'newline', tar(entry('a\nb', file)), (0,), {'/a\\012b': 'size 0'}
    yield 'large attribute', tar(entry('a', file, pax_headers={'SCHILY.xattr.user.x': 'v' * 65536})), (0,), {}
    yield 'too large attribute', tar(entry('a', file, pax_headers={'SCHILY.xattr.user.x': 'v' * 65537})), (2,), {}
    # bsdtar writes each attribute both ways.
    yield 'attribute twice', tar(entry('a', file, pax_headers={
        'SCHILY.xattr.user.a': '1', 'LIBARCHIVE.xattr.user.a': 'MQ=='})), (0,), {}
    yield 'more names of attributes than listxattr can return', tar(entry('a', file, pax_headers={
        f'SCHILY.xattr.user.{"n" * 200}{k}': '' for k in range(400)})), (2,), {}
    yield 'sparse of 8 EiB - 1', tar(sparse((1 << 63) - 1, [])), (0,), {'/sparse': f'size {(1 << 63) - 1}'}
    yield 'sparse with data far away', tar(sparse(1 << 62, [(0, b'a' * 512), ((1 << 62) - 512, b'b' * 512)])), (0,), {
        '/sparse': f'size {1 << 62}'}
    yield 'sparse, pieces in the wrong order', tar(sparse(1 << 20, [(65536, b'a' * 512), (0, b'b' * 512)])), (0, 1), {}
    yield 'sparse, pieces overlap', tar(sparse(1 << 20, [(0, b'a' * 1024), (512, b'b' * 1024)])), (0, 1), {}
    yield 'sparse, piece behind the end', tar(sparse(1024, [(1 << 40, b'a' * 512)])), (0, 1), {}
    yield 'size of 2^63', raw_entry(b'a', base256(1 << 63)) + bytes(1024), (1,), {}
    yield 'negative size', raw_entry(b'a', b'\xff' * 12) + bytes(1024), (1,), {}
    yield 'size of 2^62, no data', raw_entry(b'a', base256(1 << 62)) + bytes(1024), (1,), {}
    yield 'cut in a header', tar(a)[:700], (1,), {}
    yield 'cut in the data', tar(entry('a', file, b'x' * 9000))[:3000], (1,), {}
    yield 'no name', raw_entry(b'', b'00000000000\0') + bytes(1024), (0, 1), {}
    yield 'device numbers', tar(entry('d', tarfile.CHRTYPE, devmajor=2097151, devminor=2097151)), (0,), {
        '/d': 'device 2097151:2097151'}
    yield 'negative mode', raw_entry(b'a', b'00000000000\0', mode=b'\xff\xff\xff\xff\xff\xff\x81\xa4') + bytes(1024), (
        0, 1, 2), {}
    yield 'mode with more bits', raw_entry(b'a', b'00000000000\0', mode=b'\xb5000644\0') + bytes(1024), (0, 1, 2), {}
    yield 'noise', random.Random(1).randbytes(65536), (1,), {}
    yield 'an mtree that wants a file of ours', b'#mtree\n./f type=file size=200 contents=%s\n' % secret.encode(), (0, 1), {}
    yield 'an mtree that wants a file of ours, by name', b'#mtree\n.%s type=file size=200\n' % secret.encode(), (0, 1), {}


class Check:
    def __init__(self, build, work):
        self.mkfs, self.fsck, self.readall = (
            os.path.join(build, name) for name in ('mkfs.pinfs', 'fsck.pinfs', 'tests/mutate/readall'))
        for path in (self.mkfs, self.fsck, self.readall):
            if not os.access(path, os.X_OK):
                sys.exit(f'tars.py: {path} is missing; build it, or say --build=DIRECTORY')
        self.archive, self.image = os.path.join(work, 'archive'), os.path.join(work, 'image')
        self.work = work

    def run(self, *argv):
        # A watchdog only: an archive of a few KiB never takes long. The plain C locale is the hardest.
        r = subprocess.run(argv, capture_output=True, timeout=120, check=False, cwd=self.work,
                           env={**os.environ, 'LC_ALL': 'C'})
        return r.returncode, r.stdout, r.stderr.decode(errors='replace').strip()

    def archive_problem(self, data, statuses, facts):
        """None, or what is wrong."""
        with open(self.archive, 'wb') as f:
            f.write(data)
        status, _, messages = self.run(self.mkfs, '-q', '-f', '-b', '4K', f'--tar={self.archive}', self.image)
        if status not in statuses:
            return f'mkfs.pinfs: status {status} instead of {statuses}: {messages}'
        if status == 1:
            left = [n for n in os.listdir(self.work) if n not in ('archive', 'secret')]
            return f'it left {left} behind' if left else None if messages else 'it failed without a word'
        return self.image_problem(facts)

    def image_problem(self, facts):
        status, _, messages = self.run(self.fsck, '-n', '-q', self.image)
        if status:
            return f'fsck.pinfs: status {status}: {messages}'
        status, out, messages = self.run(self.readall, self.image)
        if status or b'\terror ' in out:
            return f'readall: status {status}: {messages}, {[x for x in out.splitlines() if b"error" in x][:3]}'
        self.run(self.mkfs, '-q', '-f', '-z', 'none', f'--tar={self.archive}', self.image)
        with open(self.image, 'rb') as f:
            if SECRET in f.read():
                return 'a file of this machine is in the image'
        os.unlink(self.image)
        lines = [line.split('\t') for line in out.decode().splitlines()]
        inodes = {path: value + ' ' for kind, path, value in lines if kind == 'inode'}
        for path, value in facts.items():
            if value + ' ' not in inodes.get(path, ''):
                return f'{path[-60:]}: {inodes.get(path)!r} instead of {value!r}'
        return None


def damaged(rng):
    """An archive with a bit of everything, and some of its bytes changed."""
    data = bytearray(tar(
        entry('d', tarfile.DIRTYPE), entry('d/file', data=b'text ' * 900), entry('l', tarfile.SYMTYPE, linkname='d/file'),
        entry('h', tarfile.LNKTYPE, linkname='d/file'), entry('p', tarfile.FIFOTYPE),
        entry('x' * 200, data=b'x', pax_headers={'SCHILY.xattr.user.a': 'b', 'SCHILY.acl.access': 'user::rw-,user:7:r--,'
                                                 'group::r--,mask::r--,other::---', 'mtime': '1.5'}),
        sparse(1 << 30, [(0, b'a' * 512), (1 << 20, b'b' * 512)]), fmt=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        data[at:at + 1] = rng.choice((rng.randbytes(1), bytes((data[at] ^ 1 << rng.randrange(8),)), b'9', b'\n', b'\xff'))
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)):]
    # Headers with right checksums are read further.
    for at in range(0, len(data) - 511, 512):
        if data[at + 257:at + 262] == b'ustar':
            data[at + 148:at + 156] = b' ' * 8
            data[at + 148:at + 156] = b'%06o\0 ' % sum(data[at:at + 512])
    return bytes(data)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    p.add_argument('--build', default=os.path.join(here, '../../build'), help='meson build directory')
    p.add_argument('--count', type=int, default=200, help='damaged archives (default 200)')
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--only', help='the name of a case, or the number of a damaged archive')
    o = p.parse_args()
    o.build = os.path.abspath(o.build)
    failed = ran = 0
    with tempfile.TemporaryDirectory() as work:
        secret = os.path.join(work, 'secret')
        with open(secret, 'wb') as f:
            f.write(SECRET * 10)
        check = Check(o.build, work)
        todo = [(name, data, statuses, facts) for name, data, statuses, facts in cases(secret)]
        todo += [(str(k), damaged(random.Random(f'{o.seed}/{k}')), (0, 1, 2), {}) for k in range(o.count)]
        for name, data, statuses, facts in todo:
            if o.only not in (None, name):
                continue
            ran += 1
            try:
                problem = check.archive_problem(data, statuses, facts)
            except subprocess.TimeoutExpired as e:
                problem = f'{e.cmd[0]} does not end'
            if problem:
                failed += 1
                print(f"{name}: {problem}\n    again: {sys.argv[0]} --build={o.build} --seed={o.seed} --only='{name}'")
                if os.path.exists(check.image):
                    os.unlink(check.image)
    print(f'{ran} archives (seed {o.seed}): {failed} failed')
    return 1 if failed or not ran else 0


if __name__ == '__main__':
    sys.exit(main())
