# SPDX-License-Identifier: MIT
"""A full disk under the delta, in each way that a writer can meet it. What these tests share: 282 to 284, 320, 321.

Each case fills the disk, looks at what was acknowledged, now and after a crash, and takes it away again: then there is room.
"""
from fs import *

BLOCK = 64 * KIB


def block(seed, n):
    return random.Random(seed * 100003 + n).randbytes(BLOCK)


def check_blocks(name, seed, count):
    with opened(name) as fd:
        for n in range(count):
            assert os.pread(fd, BLOCK, n * BLOCK) == block(seed, n), f'{name}: block {n} of {count} that were synced'


def is_full(e):
    assert name_of(e) in ('ENOSPC', 'EDQUOT'), e


def room_again(d):
    """Once something is deleted: not at once, since a checkpoint has to come first."""
    def there():
        try:
            with opened(f'{d}/room', os.O_CREAT | os.O_RDWR | os.O_TRUNC) as fd:
                for n in range(16):
                    pwrite_all(fd, block(99, n), n * BLOCK)
                os.fsync(fd)
        except OSError as e:
            is_full(e)
            return False
        return True
    until(there)
    check_blocks(f'{d}/room', 99, 16)
    os.unlink(f'{d}/room')


def by_write(d, limit, sync=1):
    """Writes, with fsync after each `sync` blocks."""
    safe = n = 0
    with opened(f'{d}/full', os.O_CREAT | os.O_RDWR) as fd:
        try:
            for n in range(limit // BLOCK):
                pwrite_all(fd, block(1, n), n * BLOCK)
                if n % sync == sync - 1:
                    os.fsync(fd)
                    safe = n + 1
            raise AssertionError(f'{limit} bytes fit')
        except OSError as e:
            is_full(e)
    assert safe, 'nothing at all'
    return safe


def by_map(d, limit):
    """Stores through a shared mapping, written back by msync."""
    safe = 0
    with opened(f'{d}/full', os.O_CREAT | os.O_RDWR) as fd:
        os.ftruncate(fd, limit)
        m = shared_map(fd, limit)
        try:
            for n in range(limit // BLOCK):
                m[n * BLOCK:(n + 1) * BLOCK] = block(1, n)
                if n % 8 == 7:
                    m.flush(n // 8 * 8 * BLOCK, 8 * BLOCK)
                    safe = n + 1
            raise AssertionError(f'{limit} bytes fit')
        except OSError as e:
            is_full(e)
        finally:
            m.close()
    assert safe, 'nothing at all'
    return safe


def content(d, fill, *args):
    safe = fill(d, *args)
    check_blocks(f'{d}/full', 1, safe)
    crash()
    check_blocks(f'{d}/full', 1, safe)
    os.unlink(f'{d}/full')
    room_again(d)


def filler(d, limit):
    by_write(d, limit)
    # What is left is for names and attributes.
    with opened(f'{d}/small', os.O_CREAT | os.O_RDWR) as fd:
        try:
            for n in range(limit // PAGE):
                pwrite_all(fd, random.Random(n).randbytes(PAGE), n * PAGE)
                os.fsync(fd)
            raise AssertionError('it all fits')
        except OSError as e:
            is_full(e)


def sync_dir(d):
    with opened(d) as fd:
        os.fsync(fd)


def names(d, limit):
    filler(d, limit)
    made = safe = 0
    os.mkdir(f'{d}/links')
    try:
        while made < 40000:
            os.symlink('x' * 1500 + str(made), f'{d}/links/{made}')
            made += 1
            if made % 20 == 0:
                sync_dir(f'{d}/links')
                safe = made
        raise AssertionError('60 MB of names fit')
    except OSError as e:
        is_full(e)
    eq(len(ls(f'{d}/links')), made)
    crash()
    there = {int(n) for n in ls(f'{d}/links')}
    # A prefix, and all that was synced.
    assert there == set(range(len(there))) and safe <= len(there) <= made, (safe, made, len(there))
    for n in there:
        eq(os.readlink(f'{d}/links/{n}'), 'x' * 1500 + str(n))
    for n in there:
        os.unlink(f'{d}/links/{n}')
    os.rmdir(f'{d}/links')
    os.unlink(f'{d}/small')
    os.unlink(f'{d}/full')
    room_again(d)


def xattrs(d, limit):
    filler(d, limit)
    safe, n = {}, 0
    value = lambda n: random.Random(n).randbytes(3000)
    try:
        with opened(f'{d}/victim', os.O_RDWR) as fd:
            for n in range(20000):
                os.setxattr(fd, f'user.{n}', value(n))
                if n % 20 == 19:
                    os.fsync(fd)
                    safe = n + 1
        raise AssertionError('60 MB of attributes fit')
    except OSError as e:
        is_full(e)
    eq(len(os.listxattr(f'{d}/victim')), n)
    crash()
    left = len(os.listxattr(f'{d}/victim'))
    assert (safe or 0) <= left <= n
    for i in range(left):
        eq(os.getxattr(f'{d}/victim', f'user.{i}') == value(i), True)
        os.removexattr(f'{d}/victim', f'user.{i}')
    os.unlink(f'{d}/small')
    os.unlink(f'{d}/full')
    room_again(d)


def crowd(d, limit):
    """Several write, sync and delete at once on a full disk: each gets an answer, and nobody's content is another's."""
    def worker(i):
        r = random.Random(i)
        mine = {}
        for turn in range(60):
            name = f'{d}/c{i}.{r.randrange(4)}'
            count = r.randrange(1, limit // BLOCK // 6)
            try:
                if exists(name) and r.randrange(3) == 0:
                    os.unlink(name)
                    mine.pop(name, None)
                    continue
                mine.pop(name, None)
                with opened(name, os.O_CREAT | os.O_RDWR | os.O_TRUNC) as fd:
                    for n in range(count):
                        pwrite_all(fd, block(i * 1000 + turn, n), n * BLOCK)
                    os.fsync(fd)
                mine[name] = (i * 1000 + turn, count)
            except OSError as e:
                is_full(e)
        for name, (seed, count) in mine.items():
            check_blocks(name, seed, count)
        for n in range(4):
            if exists(f'{d}/c{i}.{n}'):
                os.unlink(f'{d}/c{i}.{n}')
    children(worker, 4)
    room_again(d)


def make(d):
    write(f'{d}/keep', pattern(300000))
    write(f'{d}/victim', pattern(100000, 2))


def check(d, limit=40 * MIB, cases=None):
    # Of the root it is all that there is.
    sync_dir('.')
    for case in cases or (lambda: content(d, by_write, limit), lambda: content(d, by_write, limit, 8), lambda: content(d, by_map, limit),
                          lambda: names(d, limit), lambda: xattrs(d, limit), lambda: crowd(d, 12 * MIB)):
        case()
        eq(read(f'{d}/keep') == pattern(300000), True)
    # On a full disk what is there can be changed, too, or keeps what it was.
    by_write(d, limit)
    before = read(f'{d}/victim')
    done = outcome(os.truncate, f'{d}/victim', 5000)
    assert done in ('OK', 'ENOSPC', 'EDQUOT'), done
    eq(read(f'{d}/victim') == (before[:5000] if done == 'OK' else before), True)
    os.unlink(f'{d}/full')
    room_again(d)
