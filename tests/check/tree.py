# SPDX-License-Identifier: MIT
"""usage: tree.py DIR: makes a tree with every kind of file that this user can make. The same each time."""
import os
import random
import socket
import stat
import sys

top = sys.argv[1]
os.makedirs(top)
os.chdir(top)
rng = random.Random(1)
words = b'folio mapping pin mkwrite dirty writeback inode extent the a of\n'.split(b' ')


def text(n):
    out = bytearray()
    while len(out) < n:
        out += rng.choice(words) + b' '
    return bytes(out[:n])


def write(name, data, mode=0o644):
    with open(name, 'wb') as f:
        f.write(data)
    os.chmod(name, mode)


def note(what):
    print(f'tree: {what} is not possible here', file=sys.stderr)


for size in (0, 1, 511, 4095, 4096, 4097, 65536, 131071, 131072, 131073, 1000003):
    write(f'text {size}', text(size))
    write(f'random {size}', rng.randbytes(size))
write('big', text(700000) + rng.randbytes(2 << 20) + bytes(300000) + text(500000))
write('zeros', bytes(500000))
write('double', open('text 131073', 'rb').read())
write('double of small', open('text 511', 'rb').read())
os.mkdir('small')
for i in range(400):
    write(f'small/{i:03}', text(rng.randrange(3000)))

with open('sparse', 'wb') as f:
    for at in (0, 1 << 20, (5 << 20) + 4097):
        f.seek(at)
        f.write(b'island')
    f.truncate(9 << 20)
with open('hole', 'wb') as f:
    f.truncate(1 << 26)

os.symlink('text 511', 'link')
os.symlink('/nowhere/at all', 'dangling link')
os.symlink('l' * 4095, 'longest link')
os.mkfifo('fifo', 0o620)
here = os.open('.', os.O_PATH)
with socket.socket(socket.AF_UNIX) as s:
    s.bind(f'/proc/self/fd/{here}/socket')
os.link('text 4097', 'hard link')
os.mkdir('dir')
os.link('text 4097', 'dir/another hard link')
os.link('link', 'dir/hard link of a link')
os.link('fifo', 'dir/hard fifo')

os.makedirs('modes')
for mode in (0o000, 0o400, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o7777):
    write(f'modes/{mode:04o}', b'x')
    # An ordinary user could not read the rest.
    os.chmod(f'modes/{mode:04o}', mode if os.geteuid() == 0 else mode | 0o400)
os.mkdir('modes/dir', 0o711)
os.chmod('modes/dir', 0o1711)

if os.geteuid() == 0:
    os.mknod('char', 0o640 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod('block', 0o660 | stat.S_IFBLK, os.makedev(4095, 1048575))
    os.chown('text 511', 1000, 100)
    os.chown('link', 12, 34, follow_symlinks=False)
    os.chown('dir', 4294967294, 4294967294)
    os.chown('fifo', 0, 65535)

os.mkdir('names')
for c in range(1, 256):
    if c not in (ord('/'), ord('.')):
        write(b'names/' + bytes([c]), bytes([c]))
        write(b'names/x' + bytes([c]) + b'y', b'')
write(b'names/' + b'\xff' * 255, b'long')
write(b'names/' + 'ü'.encode() * 127, b'utf-8')
os.mkdir('names/...')
os.symlink(bytes(c for c in range(1, 256)), b'names/link to all bytes')

os.makedirs('/'.join(['deep'] * 60))
os.mkdir('empty dir')

times = {'text 1': (0, 0), 'text 511': (-1, 999999999), 'text 4095': (-2 ** 31, 1), 'text 4096': (2 ** 31 + 5, 123456789),
         'text 4097': (4102444800, 999999999), 'link': (1000000000, 7), 'fifo': (1234567890, 123), 'dir': (86400, 500)}
try:
    for name, value in (('user.short', b'1'), ('user.empty', b''), ('user.binary', bytes(range(256))),
                        ('user.long', b'v' * 1500), ('user.' + 'n' * 200, b'name')):
        os.setxattr('text 65536', name, value)
    os.setxattr('dir', 'user.of a directory', b'd')
    for i in range(20):
        os.setxattr(f'small/{i:03}', 'user.same', b'same')
except OSError:
    note('user.*')
for name, (sec, nsec) in times.items():
    os.utime(name, ns=(sec * 10 ** 9 + nsec,) * 2, follow_symlinks=False)
# Their times would otherwise be those of the last file made in them.
for folder in ('small', 'modes', 'names', 'deep', 'empty dir', '.'):
    os.utime(folder, ns=(1700000000123456789,) * 2)
