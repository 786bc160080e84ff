# SPDX-License-Identifier: MIT
"""What the python of the numbered tests shares: system calls that python has not, and ways to state what is expected.

usage: fs.py manifest DIR: prints all that must be the same after the next mount
"""
# Tests take all of it: from fs import *
import ctypes
import ctypes.util
import errno
import fcntl
import hashlib
import mmap
import os
import random
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PAGE = 4096
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 1, 2, 8, 16, 32
PUNCH = PUNCH_HOLE | KEEP_SIZE
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801c581f, 0x401c5820
FITRIM = 0xc0185879
FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NODUMP_FL, FS_NOATIME_FL = 0x10, 0x20, 0x40, 0x80
NS = 10 ** 9

native = 'SCRATCH_DIR' in os.environ
am_root = os.geteuid() == 0


# ---- stating what is expected ----

def eq(got, want, *context):
    assert got == want, f'{got!r}, not {want!r} {context if context else ""}'


def name_of(e):
    """With those names, of two for one number, that the manual pages use."""
    names = {errno.EOPNOTSUPP: 'EOPNOTSUPP', errno.EDEADLK: 'EDEADLK', errno.EAGAIN: 'EAGAIN'}
    return names.get(e.errno) or errno.errorcode.get(e.errno, str(e.errno))


def outcome(f, *args, **kwargs):
    """'OK' or the name of the error."""
    try:
        r = f(*args, **kwargs)
    except OSError as e:
        return name_of(e)
    if f is os.open:
        os.close(r)
    return 'OK'


def fails(want, f, *args, **kwargs):
    """want: one name or several: 'ENOENT', 'EINVAL EOPNOTSUPP'."""
    got = outcome(f, *args, **kwargs)
    assert got in want.split(), f'{got}, not {want}: {getattr(f, "__name__", f)}{args!r}{kwargs or ""}'
    return got


def until(condition):
    """Waits for a condition, a minute at most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.01)


def not_run(reason):
    print(reason)
    sys.stdout.flush()
    os._exit(77)


def call(name, *args):
    r = getattr(libc, name)(*args)
    if r is None or r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e), name)
    return r


def both(make, check):
    """Runs check(d) on two directories that make(d) has filled: one of the image, one made on the mount."""
    if sys.argv[1:] == ['make']:
        os.mkdir('image')
        make('image')
        return
    os.mkdir('fresh')
    make('fresh')
    for d in ('fresh', 'image'):
        try:
            check(d)
        except BaseException:
            print(f'with what {"is in the image" if d == "image" else "was made on the mount"}:')
            raise


def child(f, *args, uid=None, gid=None, groups=(), wait=True):
    """f in a process of its own, as somebody else if need be. What it returns or raises comes back (wait), or its pid."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            os.close(r)
            if uid is not None:
                os.setgroups(list(groups))
                os.setresgid(*[uid if gid is None else gid] * 3)
                os.setresuid(*[uid] * 3)
            result = f(*args)
            if wait:
                os.write(w, repr(result).encode())
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(w)
    if not wait:
        os.close(r)
        return pid
    with os.fdopen(r, 'rb') as f:
        text = f.read()
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f'the child ended with status {status:#x}'
    return eval(text)


def children(f, n, *args):
    """f(0), f(1)... f(n - 1) in as many processes at once; all must succeed."""
    pids = [child(f, i, *args, wait=False) for i in range(n)]
    bad = [s for s in (os.waitpid(p, 0)[1] for p in pids) if s]
    assert not bad, f'children ended with {bad}'


def remount():
    """Unmounts and mounts again; the current directory stays $M."""
    if native:
        os.sync()
        return
    os.chdir(os.environ['T'])
    m = os.environ['M']
    subprocess.run(['pinfs', 'umount', m], check=True)
    subprocess.run(['pinfs', 'mount', '-o', os.environ['SCRATCH_OPTIONS'], os.environ['IMAGE'], m], check=True)
    os.chdir(m)


def daemon_pid():
    """The process that serves the mount: PINFS_IOC_INFO, see include/pinfs/ioctl.h."""
    size = struct.calcsize('=IIII16sQQQ16s32s32s4096s')
    buf = bytearray(size)
    struct.pack_into('=I', buf, 0, size)
    with opened(os.environ['M'], os.O_RDONLY | os.O_DIRECTORY) as fd:
        fcntl.ioctl(fd, 3 << 30 | size << 16 | 0xb5 << 8 | 1, buf)
    return struct.unpack_from('=IIII', buf)[2]


def kill_daemon():
    """Ends the daemon as a power failure would. Returns its pid, for mount_after()."""
    pid = daemon_pid()
    os.chdir(os.environ['T'])
    os.kill(pid, signal.SIGKILL)
    return pid


def mount_after(pid):
    """Checks what a daemon left that was killed, and mounts again."""
    m = os.environ['M']
    subprocess.run(['umount', '-l', m] if am_root else ['fusermount3', '-uz', m], check=True)
    # Its last thread takes the lock on the delta with it; the first may be a zombie long before.
    while True:
        try:
            with open(f'/proc/{pid}/stat', encoding='ascii') as f:
                if f.read().rpartition(')')[2].split()[0] == 'Z' and len(os.listdir(f'/proc/{pid}/task')) < 2:
                    break
        except OSError:
            break
        time.sleep(0.002)
    done = subprocess.run(['fsck.pinfs', os.environ['IMAGE'], os.environ['DELTA']], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(['pinfs', 'mount', '-o', os.environ['SCRATCH_OPTIONS'], os.environ['IMAGE'], m], check=True)
    os.chdir(m)


def crash():
    mount_after(kill_daemon())


def drop_caches(what=3):
    if am_root:
        with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as f:
            f.write(str(what))


# ---- files ----

def write(name, data=b'', mode=None):
    if isinstance(data, str):
        data = data.encode()
    with open(name, 'wb') as f:
        f.write(data)
    if mode is not None:
        os.chmod(name, mode)


def read(name):
    with open(name, 'rb') as f:
        return f.read()


def exists(name):
    return os.path.lexists(name)


def pattern(n, seed=1):
    """n bytes of which no two pages are the same, half of it compressible."""
    r = random.Random(seed)
    return b''.join(r.randbytes(32) + b'%032d' % i for i in range(n // 64 + 1))[:n]


def ls(d='.'):
    return sorted(os.listdir(d))


def pwrite_all(fd, data, at):
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def size_of(f):
    return os.stat(f).st_size


def nlink(name):
    return os.lstat(name).st_nlink


def mode_of(name):
    return stat.S_IMODE(os.lstat(name).st_mode)


def ino(name):
    return os.lstat(name).st_ino


class opened:
    """with opened(name, flags) as fd"""

    def __init__(self, name, flags=os.O_RDONLY, mode=0o666, **kwargs):
        self.fd = os.open(name, flags, mode, **kwargs)

    def __enter__(self):
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def shared_map(fd, size, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=0):
    """A shared mapping. Some modes of caching have none; the test is not run there."""
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, prot, offset=offset)
    except OSError as e:
        if e.errno == errno.ENODEV and 'cache=daemon' in os.environ.get('MOUNT_OPTIONS', ''):
            not_run('no shared mappings with cache=daemon')
        raise


def direct_open(name, flags=os.O_RDWR):
    try:
        return os.open(name, flags | os.O_DIRECT, 0o666)
    except OSError as e:
        if native and e.errno == errno.EINVAL:
            not_run('no O_DIRECT here')
        raise


def aligned(n):
    """n writable bytes that begin at a page."""
    return mmap.mmap(-1, n)


def tick():
    """Waits until files get another time than now; kernels count time for files in steps of some milliseconds."""
    clock = time.CLOCK_REALTIME_COARSE if hasattr(time, 'CLOCK_REALTIME_COARSE') else 5
    begin = time.clock_gettime_ns(clock)
    while time.clock_gettime_ns(clock) == begin:
        time.sleep(0.001)
    time.sleep(0.002)


def times(f, follow=False):
    s = os.fstat(f) if isinstance(f, int) else os.stat(f, follow_symlinks=follow)
    return {'a': s.st_atime_ns, 'm': s.st_mtime_ns, 'c': s.st_ctime_ns}


def changed(f, name, *args, which='mc'):
    """Which of the times of name f(*args) changes: '', 'c', 'mc'..."""
    before = times(name)
    tick()
    f(*args)
    after = times(name)
    return ''.join(k for k in which if before[k] != after[k])


# ---- system calls ----

def renameat2(old, new, flags=0):
    call('renameat2', AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def exchange(a, b):
    renameat2(a, b, RENAME_EXCHANGE)


def fallocate(fd, mode, offset, length):
    call('fallocate', fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def copy_file_range(src, dst, n, at_src=None, at_dst=None, flags=0):
    a = None if at_src is None else ctypes.byref(ctypes.c_long(at_src))
    b = None if at_dst is None else ctypes.byref(ctypes.c_long(at_dst))
    libc.copy_file_range.restype = ctypes.c_long
    return call('copy_file_range', src, a, dst, b, ctypes.c_size_t(n), flags)


def linkat(old, new, flags=0, fd=AT_FDCWD):
    call('linkat', fd, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def link_fd(fd, new):
    """Gives an open file a name."""
    linkat(f'/proc/self/fd/{fd}', new, AT_SYMLINK_FOLLOW)


def syncfs(fd):
    call('syncfs', fd)


class FileHandle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]


def name_to_handle(name):
    h, mount = FileHandle(bytes=128), ctypes.c_int()
    call('name_to_handle_at', AT_FDCWD, os.fsencode(name), ctypes.byref(h), ctypes.byref(mount), 0)
    return bytes(h)


def open_by_handle(handle, flags=os.O_RDONLY, where='.'):
    h = FileHandle.from_buffer_copy(handle)
    with opened(where, os.O_RDONLY | os.O_DIRECTORY) as d:
        return call('open_by_handle_at', d, ctypes.byref(h), flags)


def ioctl_int(name, request, value=0):
    """An ioctl with a long to read or write."""
    fd = name if isinstance(name, int) else os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return struct.unpack('I', fcntl.ioctl(fd, request, struct.pack('q', value))[:4])[0]
    finally:
        if fd is not name:
            os.close(fd)


def get_flags(name):
    return ioctl_int(name, FS_IOC_GETFLAGS)


def set_flags(name, value):
    ioctl_int(name, FS_IOC_SETFLAGS, value)


class Statx(ctypes.Structure):
    _fields_ = [('mask', ctypes.c_uint32), ('blksize', ctypes.c_uint32), ('attributes', ctypes.c_uint64),
                ('nlink', ctypes.c_uint32), ('uid', ctypes.c_uint32), ('gid', ctypes.c_uint32), ('mode', ctypes.c_uint16),
                ('pad', ctypes.c_uint16), ('ino', ctypes.c_uint64), ('size', ctypes.c_uint64), ('blocks', ctypes.c_uint64),
                ('attributes_mask', ctypes.c_uint64)] + \
               [(f'{t}_{u}', k) for t in ('atime', 'btime', 'ctime', 'mtime')
                for u, k in (('sec', ctypes.c_int64), ('nsec', ctypes.c_uint32), ('pad', ctypes.c_int32))] + \
               [('rest', ctypes.c_uint64 * 16)]


def statx(name, mask=0xfff, flags=AT_SYMLINK_NOFOLLOW):
    s = Statx()
    call('statx', AT_FDCWD, os.fsencode(name), flags, mask, ctypes.byref(s))
    return s


def getdents(fd, size=32768):
    """[(ino, cookie, type, name)] of the next entries."""
    buf = ctypes.create_string_buffer(size)
    n = call('syscall', 217, fd, buf, size) if os.uname().machine == 'x86_64' else call('syscall', 61, fd, buf, size)
    out, at = [], 0
    while at < n:
        i, cookie, length, kind = struct.unpack_from('QqHB', buf.raw, at)
        out.append((i, cookie, kind, buf.raw[at + 19:at + length].split(b'\0')[0]))
        at += length
    return out


def posix_lock(fd, kind, start=0, length=0, command=fcntl.F_SETLK):
    """command: F_SETLK, F_SETLKW, F_GETLK, or 36 to 38 for those of the open file description. Returns what it gives."""
    data = struct.pack('hhqqi4x', kind, os.SEEK_SET, start, length, 0)
    return struct.unpack('hhqqi4x', fcntl.fcntl(fd, command, data))


OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38


def segments(name):
    """The data of a file as SEEK_DATA and SEEK_HOLE tell: [(from, to)]"""
    out = []
    with opened(name) as fd:
        at, end = 0, os.fstat(fd).st_size
        while at < end:
            try:
                begin = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as e:
                eq(name_of(e), 'ENXIO')
                break
            at = os.lseek(fd, begin, os.SEEK_HOLE)
            assert at > begin, (name, begin, at)
            out.append((begin, at))
    return out


# ---- what must be the same after the next mount ----

def digest(name):
    """Of the bytes of a file that are not zero; how its zeroes are stored may change."""
    h, zero = hashlib.sha1(), bytes(PAGE)
    for begin, end in segments(name):
        with opened(name) as fd:
            at = begin
            while at < end:
                data = os.pread(fd, min(MIB, end - at), at)
                if not data:
                    break
                for i in range(0, len(data), PAGE):
                    page = data[i:i + PAGE]
                    if page != zero[:len(page)]:
                        h.update(b'%d ' % (at + i) + page.rstrip(b'\0'))
                at += len(data)
    return h.hexdigest()


def manifest(top):
    def line(path):
        s = os.lstat(path)
        words = [f'{s.st_mode:o}', s.st_uid, s.st_gid, s.st_nlink, s.st_ino, s.st_rdev, s.st_mtime_ns, s.st_ctime_ns]
        # How big a directory is says nothing about it.
        words.append('-' if stat.S_ISDIR(s.st_mode) else s.st_size)
        try:
            if stat.S_ISLNK(s.st_mode):
                words.append(os.readlink(path))
            elif stat.S_ISREG(s.st_mode):
                words.append(digest(path))
            for name in sorted(os.listxattr(path, follow_symlinks=False)):
                value = os.getxattr(path, name, follow_symlinks=False)
                words.append(f'{name}={hashlib.sha1(value).hexdigest()}')
        except PermissionError:
            words.append('unreadable')
        return words

    def walk(path):
        print(ascii(path), *map(ascii, line(path)))
        if stat.S_ISDIR(os.lstat(path).st_mode):
            try:
                names = sorted(os.listdir(path))
            except PermissionError:
                return
            for name in names:
                try:
                    walk(f'{path}/{name}')
                except PermissionError:
                    print(ascii(f'{path}/{name}'), 'unreachable')

    sys.setrecursionlimit(10000)
    os.chdir(top)
    walk('.')


if __name__ == '__main__' and sys.argv[1:2] == ['manifest']:
    manifest(sys.argv[2])
