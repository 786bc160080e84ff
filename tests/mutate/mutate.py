#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Damages an image in many ways; fsck must find each, and no read may ever give wrong data.

usage: mutate.py [OPTION]...

Each mutation changes bytes of a copy of the image (a bit, a run of garbage, pages zeroed, exchanged or written to the
wrong place, the end cut off). Then

  * fsck.pinfs must say 4 (damaged) or 8 (can't be opened), and 0 if no byte changed;
  * all that can be read through the image library, and for some of them through a mount, must be what it was, or an
    error (readall.c prints both as lines that can be compared);
  * nothing may crash, hang, or use more memory than it is allowed.

A failure prints the command that repeats it; the damaged image is kept. Exit status: 0 none failed; 1 some; 2 it could
not run.
"""
import argparse
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time

PAGE = 4096
KEEP_MOST = 10
FSCK_FOUND = (4, 8)


class Trouble(Exception):
    """The test itself can't run."""


# ---- what is tested ----

def find_tool(build, name):
    path = os.path.join(build, name)
    if not os.access(path, os.X_OK):
        raise Trouble(f'{path} is missing; build it, or say --build=DIRECTORY')
    return path


class Tools:
    def __init__(self, options):
        self.mkfs = find_tool(options.build, 'mkfs.pinfs')
        self.fsck = find_tool(options.build, 'fsck.pinfs')
        self.readall = find_tool(options.build, 'tests/mutate/readall')
        self.pinfs = None if options.no_mount else find_tool(options.build, 'pinfs')
        with open(self.readall, 'rb') as f:
            self.sanitized = b'__asan_' in f.read()
        self.timeout = options.timeout
        self.memory = options.memory << 20

    def run(self, argv, stdout):
        """Runs to the end. Returns exit status (negative: signal), peak memory, messages.

        The kernel counts the peak from the fork on, so it is never less than what this script has itself.
        """
        with tempfile.TemporaryFile() as err:
            child = subprocess.Popen(argv, stdout=stdout, stderr=err, stdin=subprocess.DEVNULL)
            status, usage = wait_for(child.pid, self.timeout)
            child.returncode = 0
            err.seek(0)
            return status, usage.ru_maxrss * 1024, err.read().decode(errors='replace')

    def too_much(self, peak):
        return not self.sanitized and peak > self.memory


def wait_for(pid, timeout):
    """The exit status of a child; the watchdog ends it with SIGABRT, so that it fails and leaves a core."""
    previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGABRT))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        _, status, usage = os.wait4(pid, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return os.waitstatus_to_exitcode(status), usage


# ---- the image ----

def make_tree(top, seed):
    """All kinds of things, and some MiB of this machine's files."""
    rng = random.Random(seed)
    words = [bytes(rng.choices(b'abcdefghijklmnopqrstuvwxyz', k=rng.randint(1, 9))) for _ in range(500)]

    def text(size):
        out = bytearray()
        while len(out) < size:
            out += rng.choice(words) + b' '
        return bytes(out[:size])

    def put(name, data):
        path = os.path.join(top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'wb') as f:
            f.write(data)
        return path

    for i in range(600):
        put(f'small/{i % 7}/text-{i}', text(rng.randint(0, 3000)))
    for i in range(120):
        put(f'wide/{"n" * rng.randint(1, 200)}{i}', b'')
    for i in range(4):
        put(f'big/text-{i}', text(rng.randint(200_000, 500_000)))
        put(f'big/noise-{i}', rng.randbytes(rng.randint(100_000, 300_000)))
    shutil.copy(os.path.join(top, 'big/text-1'), os.path.join(top, 'big/copy'))
    with open(os.path.join(top, 'sparse'), 'wb') as f:
        f.truncate(1 << 32)
        for offset in range(0, 4 << 20, 1 << 18):
            f.seek(offset)
            f.write(text(9000))
        f.seek((1 << 32) - 5000)
        f.write(b'end')
    os.link(os.path.join(top, 'big/text-0'), os.path.join(top, 'hard'))
    for i in range(60):
        os.symlink(os.fsdecode(text(rng.randint(1, 900)).replace(b' ', b'/')), os.path.join(top, 'small', f'link-{i}'))
    os.mkfifo(os.path.join(top, 'fifo'))
    for i in range(40):
        attributes(put(f'attributes/{i}', b''), i, rng)
    if os.geteuid() == 0:
        os.mknod(os.path.join(top, 'device'), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for name in ('/bin/ls', '/bin/sh', '/usr/bin/env', '/usr/bin/find'):
        if os.path.exists(name):
            shutil.copy(name, put('bin/' + os.path.basename(name), b''))
    for root in ('/usr/include/linux', '/usr/share/doc'):
        copied = 0
        for where, dirs, names in os.walk(root):
            dirs.sort()
            for name in sorted(names):
                path = os.path.join(where, name)
                if copied < 1_500_000 and os.path.isfile(path) and not os.path.islink(path):
                    copied += os.path.getsize(path)
                    shutil.copy(path, put('real' + path, b''))


def attributes(path, i, rng):
    try:
        os.setxattr(path, 'user.number', str(i // 2).encode())
        if i % 3 == 0:
            os.setxattr(path, 'user.random', rng.randbytes(rng.randint(0, 900)))
    except OSError:
        pass


def make_image(tools, work, seed):
    tree, image = os.path.join(work, 'tree'), os.path.join(work, 'pristine')
    os.mkdir(tree)
    make_tree(tree, seed)
    # The same image each time, so that a mutation's number says all.
    os.environ['SOURCE_DATE_EPOCH'] = '1000000000'
    argv = [tools.mkfs, '-q', '--clamp-mtime', '--all-root', '--xip=auto', '-b', '32K', tree, image]
    status, _, messages = tools.run(argv, subprocess.DEVNULL)
    if status:
        raise Trouble(f'mkfs.pinfs failed ({status}): {messages}')
    shutil.rmtree(tree)
    return image


# ---- facts ----

def parse_facts(data):
    facts = {}
    for line in data.decode(errors='surrogateescape').splitlines():
        kind, what, value = line.split('\t', 2)
        facts[kind, what] = value
    return facts


def is_error(value):
    return value is not None and value.startswith('error ')


def path_of(kind, what, inodes):
    """data and xattr lines have something behind the path; paths may have spaces."""
    while kind in ('data', 'xattr') and what not in inodes:
        what = what.rpartition(' ')[0]
    return what


def explained(kind, path, broken):
    """Is a missing fact the consequence of an error that was told? broken: (kind, path) of all errors."""
    if ('inode', path) in broken:
        return kind != 'look'
    if kind in ('data', 'xattr') and (kind, path) in broken:
        return True
    if kind == 'xattr' and ('xattrs', path) in broken:
        return True
    while path != '/':
        path = path.rpartition('/')[0] or '/'
        if ('names', path) in broken or ('inode', path) in broken:
            return True
    return False


def wrong_facts(pristine, now):
    """What is neither as it was nor an error."""
    inodes = {what for kind, what in pristine if kind == 'inode'}
    broken = {(kind, path_of(kind, what, inodes)) for (kind, what), value in now.items() if is_error(value)}
    wrong = []
    for key, value in now.items():
        if not is_error(value) and pristine.get(key) != value:
            wrong.append(f'{key[0]} {key[1]}: {value!r} instead of {pristine.get(key)!r}')
    for key, value in pristine.items():
        if key not in now and not explained(key[0], path_of(*key, inodes), broken):
            wrong.append(f'{key[0]} {key[1]}: nothing is said instead of {value!r}')
    return wrong


# ---- mutations ----

class Mutation:
    """One change of the image, from its number alone. apply() and undo() work on the copy in place."""

    def __init__(self, seed, number, size, meta):
        self.rng = random.Random(f'{seed}/{number}')
        self.size, self.meta = size, meta
        self.saved = []
        self.changed = False
        self.text = ''

    def place(self, n):
        """Half of all hit metadata and superblocks, which are a small part of the image."""
        rng = self.rng
        if rng.random() < 0.1:
            low, high = rng.choice(((0, PAGE), (self.size - PAGE, self.size)))
        elif rng.random() < 0.5:
            low, high = self.meta, self.size
        else:
            low, high = 0, self.size
        return min(rng.randrange(low, high), self.size - n)

    def page(self):
        return self.place(1) // PAGE * PAGE

    def write(self, f, offset, data):
        self.saved.append((offset, os.pread(f, len(data), offset)))
        os.pwrite(f, data, offset)

    def apply(self, f):
        rng = self.rng
        kind = rng.choices(('bit', 'byte', 'bytes', 'zero page', 'garbage page', 'exchange', 'misplaced', 'cut',
                            'several'), weights=(25, 20, 12, 8, 8, 7, 7, 6, 7))[0]
        getattr(self, '_' + kind.replace(' ', '_'))(f)
        self.text = f'{kind}: {self.text}'
        self.changed = kind == 'cut' or self.differs(f)

    def differs(self, f):
        before = {}
        for at, old in self.saved:
            for i, byte in enumerate(old):
                before.setdefault(at + i, byte)
        return any(os.pread(f, 1, at) != bytes((old,)) for at, old in before.items())

    def _bit(self, f):
        at, bit = self.place(1), self.rng.randrange(8)
        self.text += f'bit {bit} of byte {at}; '
        self.write(f, at, bytes([os.pread(f, 1, at)[0] ^ 1 << bit]))

    def _byte(self, f):
        at = self.place(1)
        self.text += f'byte {at}; '
        self.write(f, at, self.rng.choice((b'\0', b'\xff', self.rng.randbytes(1))))

    def _bytes(self, f):
        n = self.rng.randint(2, 600)
        at = self.place(n)
        self.text += f'{n} bytes at {at}; '
        self.write(f, at, self.rng.randbytes(n))

    def _zero_page(self, f):
        at = self.page()
        self.text += f'page at {at}'
        self.write(f, at, bytes(PAGE))

    def _garbage_page(self, f):
        at = self.page()
        self.text += f'page at {at}'
        self.write(f, at, self.rng.randbytes(PAGE))

    def _exchange(self, f):
        a, b = self.page(), self.page()
        self.text += f'pages at {a} and {b}'
        first, second = os.pread(f, PAGE, a), os.pread(f, PAGE, b)
        self.write(f, a, second)
        self.write(f, b, first)

    def _misplaced(self, f):
        a, b = self.page(), self.page()
        self.text += f'page at {b} has the content of {a}'
        self.write(f, b, os.pread(f, PAGE, a))

    def _cut(self, f):
        keep = self.rng.choice((self.place(1), self.page(), self.size - 1, self.size - PAGE))
        self.text += f'after {keep} bytes'
        self.saved.append((keep, os.pread(f, self.size - keep, keep)))
        os.ftruncate(f, keep)

    def _several(self, f):
        for _ in range(self.rng.randint(2, 6)):
            self.rng.choice((self._bit, self._byte, self._bytes))(f)

    def undo(self, f):
        for offset, old in reversed(self.saved):
            os.pwrite(f, old, offset)


def metadata_begins(image):
    with open(image, 'rb') as f:
        sb = f.read(PAGE)
    return struct.unpack_from('<Q', sb, 160)[0] // PAGE * PAGE


# ---- one mutation ----

class Run:
    def __init__(self, tools, options, work, image):
        self.tools, self.options, self.work = tools, options, work
        self.copy, self.paths = os.path.join(work, 'copy'), os.path.join(work, 'paths')
        self.kept = 0
        self.peak_fsck = self.peak_read = self.peak_mount = 0
        self.unopened = self.unchanged = self.mounts = self.refused = self.with_errors = 0
        self.out, self.point = os.path.join(work, 'out'), os.path.join(work, 'mount')
        self.image_size, self.meta = os.path.getsize(image), metadata_begins(image)
        shutil.copyfile(image, self.copy)
        os.mkdir(self.point)
        status, facts, problem = self.read([self.copy], [f'--write-paths={self.paths}'])
        if status or problem:
            raise Trouble(f'the image can not be read undamaged: {problem or status}')
        status, self.pristine, problem = self.read([self.copy])
        if status or problem or any(is_error(v) for v in self.pristine.values()):
            raise Trouble(f'the image can not be read undamaged: {problem or status}')
        self.mounted_pristine = None
        if tools.pinfs:
            problems, self.mounted_pristine = self.mounted()
            if problems or any(is_error(v) for v in self.mounted_pristine.values()):
                raise Trouble(f'the image can not be mounted undamaged: {problems}')

    def read(self, what, extra=()):
        """Exit status, facts, and a problem or None."""
        extra = list(extra) or [f'--paths={self.paths}']
        extra += ['--no-verify'] if self.options.no_verify else []
        with open(self.out, 'wb') as out:
            status, peak, messages = self.tools.run([self.tools.readall, *extra, *what], out)
        self.peak_read = max(self.peak_read, peak)
        if status not in (0, 1) or self.tools.too_much(peak):
            return status, {}, f'readall: status {status}, {peak >> 20} MiB: {messages}'
        with open(self.out, 'rb') as f:
            return status, parse_facts(f.read()), None

    def check_fsck(self, changed):
        status, peak, messages = self.tools.run([self.tools.fsck, '-n', '-q', self.copy], subprocess.DEVNULL)
        self.peak_fsck = max(self.peak_fsck, peak)
        if self.tools.too_much(peak):
            yield f'fsck.pinfs used {peak >> 20} MiB'
        if status not in (FSCK_FOUND if changed else (0,)):
            yield f'fsck.pinfs: status {status}: {messages.strip()[-2000:]}'
        if status in FSCK_FOUND and not messages.strip():
            yield f'fsck.pinfs: status {status} without a word'

    def check_read(self):
        status, facts, problem = self.read([self.copy])
        self.has_root = status == 0 and not is_error(facts.get(('inode', '/'), 'error '))
        if problem:
            yield problem
        elif status == 1:
            self.unopened += 1
        else:
            self.with_errors += any(is_error(v) for v in facts.values())
            yield from wrong_facts(self.pristine, facts)

    def mounted(self):
        """Mounts, reads everything, unmounts. Returns (problems, facts or None if it can't be mounted)."""
        argv = [self.tools.pinfs, 'mount', '-f', '-o', 'cache_size=8M', self.copy, self.point]
        device = os.stat(self.point).st_dev
        with tempfile.TemporaryFile() as err:
            daemon = subprocess.Popen(argv, stdout=err, stderr=err, stdin=subprocess.DEVNULL)
            problems, facts, gone = [], None, None
            deadline = time.monotonic() + self.tools.timeout
            while gone is None and not is_mounted(self.point, device):
                gone = daemon.poll()
                if time.monotonic() > deadline:
                    problems.append('pinfs mount: it takes too long')
                    daemon.kill()
                time.sleep(0.002)
            if gone is None:
                _, facts, problem = self.read(['--dir', self.point])
                problems += [problem] if problem else []
                subprocess.run([self.tools.pinfs, 'umount', self.point], check=False,
                               timeout=self.tools.timeout)
                status, usage = wait_for(daemon.pid, self.tools.timeout)
                daemon.returncode = status
                peak = usage.ru_maxrss * 1024
                self.peak_mount = max(self.peak_mount, peak)
                if status or self.tools.too_much(peak):
                    err.seek(0)
                    problems.append(f'the daemon: status {status}, {peak >> 20} MiB: {err.read()[-2000:]}')
            elif gone < 0 or gone not in (32, 2, 1, 8):
                err.seek(0)
                problems.append(f'pinfs mount: status {gone}: {err.read()[-2000:]}')
            return problems, facts

    def check_mount(self):
        self.mounts += 1
        problems, facts = self.mounted()
        yield from problems
        if problems and not facts:
            return
        if facts is None:
            self.refused += 1
            if self.has_root and not problems:
                yield 'pinfs mount refuses what the image library can read'
        else:
            yield from wrong_facts(self.mounted_pristine, facts)

    def one(self, number, f):
        m = Mutation(self.options.seed, number, self.image_size, self.meta)
        m.apply(f)
        try:
            self.unchanged += not m.changed
            if self.options.no_verify:
                return not list(self.check_read())
            problems = list(self.check_fsck(m.changed)) + list(self.check_read())
            if self.tools.pinfs and (number % self.options.mount_every == 0 or self.options.only is not None):
                problems += list(self.check_mount())
            if problems:
                self.report(number, m, problems)
            return not problems
        finally:
            m.undo(f)

    def report(self, number, m, problems):
        kept = os.path.abspath(f'mutate-failed-{self.options.seed}-{number}')
        self.kept += 1
        if self.kept <= KEEP_MOST:
            shutil.copyfile(self.copy, kept)
        print(f'mutation {number} ({m.text}):')
        for p in problems[:8]:
            print('    ' + p)
        if len(problems) > 8:
            print(f'    … and {len(problems) - 8} more')
        image = f' --image={self.options.image}' if self.options.image else ''
        print(f'    damaged image: {kept}\n    again: {sys.argv[0]} --build={self.options.build}{image} '
              f'--seed={self.options.seed} --only={number}', flush=True)


def is_mounted(point, device):
    try:
        return os.stat(point).st_dev != device
    except OSError:
        return True


def run(options, work):
    tools = Tools(options)
    image = options.image or make_image(tools, work, options.seed)
    r = Run(tools, options, work, image)
    numbers = [options.only] if options.only is not None else range(options.count)
    failed, begin = [], time.monotonic()
    f = os.open(r.copy, os.O_RDWR)
    try:
        for number in numbers:
            if not r.one(number, f):
                failed.append(number)
            if options.progress and number % 50 == 0:
                print(f'\r{number}', end='', file=sys.stderr, flush=True)
    finally:
        os.close(f)
    print(f'{len(numbers)} mutations of {r.image_size >> 10} KiB (seed {options.seed}): {len(failed)} failed; '
          f'{r.unchanged} changed nothing, {r.with_errors} gave read errors, {r.unopened} could not be opened; '
          f'{r.mounts} mounted, {r.refused} of them refused; peak memory: fsck {r.peak_fsck >> 20}, '
          f'reader {r.peak_read >> 20}, daemon {r.peak_mount >> 20} MiB; {time.monotonic() - begin:.0f} s')
    # Without checksums it is a failure of this test if nothing wrong was noticed.
    return 1 if bool(failed) != options.no_verify else 0


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    p.add_argument('--build', default=os.path.join(here, '../../build'), help='meson build directory')
    p.add_argument('--image', help='damage a copy of this image (default: one of a tree made for it)')
    p.add_argument('--count', type=int, default=2000, help='mutations (default 2000)')
    p.add_argument('--seed', type=int, default=1, help='another seed, other mutations (default 1)')
    p.add_argument('--only', type=int, metavar='K', help='only mutation K, also through a mount')
    p.add_argument('--mount-every', type=int, default=20, metavar='N', help='mount each Nth (default 20)')
    p.add_argument('--no-mount', action='store_true', help='do not mount')
    p.add_argument('--no-verify', action='store_true',
                   help='test of this test: read without checksums; then wrong data must be found')
    p.add_argument('--timeout', type=float, default=120, help='watchdog for one command, in seconds')
    p.add_argument('--memory', type=int, default=256, help='most MiB that one process may use')
    p.add_argument('--work', help='directory for the files it needs (default: a temporary one)')
    p.add_argument('--progress', action='store_true', default=sys.stderr.isatty(), help='show progress')
    options = p.parse_args()
    options.build = os.path.abspath(options.build)
    print(f'seed {options.seed}', flush=True)
    try:
        with tempfile.TemporaryDirectory(dir=options.work) as work:
            return run(options, work)
    except Trouble as e:
        print(f'mutate.py: {e}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
